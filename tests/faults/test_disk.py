"""A disk without room: nothing new is accepted, and all is well again once there is some."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inferstack.client import AsyncClient, Problem, Retries
from tests.faults.ledger import PATIENT, Ledger
from tests.local.stack import RealStack

SIZE = "640m"
"""`inferstack up` wants 500 MB; what is left of it is filled with one file."""
IN_A_ROW = 5
ONCE = Retries(attempts=1)


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """An empty home on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk; only root can mount a small one")
    folder = Path(tempfile.mkdtemp(prefix="inferstack-faults-"))
    folder.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0711", "tmpfs", str(home)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk; cannot mount one: {mounted.stderr.strip()}")
    try:
        yield home
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def stack() -> Iterator[RealStack]:
    with small_disk(SIZE) as home:
        running = RealStack(home)
        try:
            running.up()
            yield running
        finally:
            running.print_logs()
            running.close()


def test_a_disk_without_room_is_one_line_and_leaves_nothing_running() -> None:
    with small_disk("400m") as home:
        stack = RealStack(home)
        refused = stack.command("up", "--no-ray")
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert "MB" in refused.stderr
        assert str(home) in refused.stderr
        assert stack.left() == []


def fill(home: Path) -> Path:
    """Takes all the room that there is, to the last page, while others take some too."""
    filler, size = home / "filler", 0
    with filler.open("wb") as file:
        for block in (2**24, 2**20, 2**16, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), size, block)
                    size += block
    return filler


async def refused(url: str, ledger: Ledger) -> None:
    """Returns once many submits in a row were refused, each properly."""
    until, before = time.monotonic() + 60, len(ledger.accepted)
    async with AsyncClient(url, retries=ONCE) as client:
        while len(ledger.refused) < IN_A_ROW:
            assert time.monotonic() < until, "it goes on without room"
            if await ledger.submit(client) is not None:
                ledger.refused.clear()
    # What little room the last pages of its files had may have been used up first.
    assert len(ledger.accepted) - before < 200
    assert {getattr(error, "status", None) for error in ledger.refused} == {503}
    assert all(isinstance(e, Problem) and e.retry_after is not None for e in ledger.refused)
    ledger.refused.clear()


@pytest.mark.timeout(180)
def test_a_full_disk_takes_nothing_new_and_loses_nothing(stack: RealStack, seed: int) -> None:
    ledger = Ledger()
    url = f"http://127.0.0.1:{stack.port}"

    async def run() -> None:
        await ledger.load(url, tasks=100, sleep_ms=2, seed=seed)
        async with AsyncClient(url, retries=PATIENT) as client:
            for _ in range(40):
                # They are unfinished when the room ends.
                await ledger.submit(client, sleep_ms=100)
            filler = fill(stack.home.root)
            ledger.tally.faults += 1
            await refused(url, ledger)
            filler.unlink()
            # Nobody does anything: the supervisor starts again what has ended.
            assert await ledger.submit(client) is not None
        await ledger.load(url, tasks=100, sleep_ms=2, seed=seed)

    asyncio.run(run())
    state = stack.current()
    asyncio.run(ledger.check(url, state.redis_url, state.database_url))
    assert not ledger.refused
    assert stack.child("redis").restarts > 0
