"""Replicas as plain processes: what is done about those that do not stay alive."""

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from inferstack.engines.repository import find, scan
from inferstack.worker import pool
from inferstack.worker.pool import Pool, ReplicaPlan
from inferstack.worker.registrar import MOST_EARLY_DEATHS
from tests.worker.fakes import settings


class Scripted(ReplicaPlan):
    """A replica that is another program; the script gets `--stderr=<fd>`."""

    script = ""

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.script]


class Dying(Scripted):
    """Ends before any of its own code runs."""

    script = "import no_such_module"


class Flapping(Scripted):
    """Ends right after it got ready."""

    script = """if True:
        import sys
        from inferstack.worker.early import end_early_output
        end_early_output(int(sys.argv[-1].partition("=")[2]))
        raise SystemExit(7)
    """


class Telling(Scripted):
    """Ends with what one of its variables says."""

    script = "import os; raise SystemExit(os.environ['GPUS'])"


class Refused(Scripted):
    """The system does not start it."""

    @property
    def command(self) -> list[str]:
        return ["/dev/null"]


async def reports_of(plan: type[Scripted], until: Callable[[list[str]], bool]) -> list[str]:
    """What a pool says of a replica until a condition on its log, or on what it said, holds."""
    chosen = settings()
    entry = find(scan(chosen.model_path, chosen), "echo", 1)
    reports: list[str] = []
    replicas = Pool(
        [plan(entry, "cpu", {"GPUS": "3"})],
        dict(os.environ),
        lambda *said: reports.append(": ".join(said)),
        20,
    )
    running = asyncio.create_task(replicas.run())
    async with asyncio.timeout(30):
        while not until(reports):
            await asyncio.sleep(0.01)
    replicas.stop()
    await asyncio.wait_for(running, 20)
    return reports


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(pool, "LONGEST_PAUSE", 0.01)


async def test_a_replica_that_never_gets_ready_fails_its_deployment_and_says_why() -> None:
    reports = await reports_of(Dying, bool)
    assert reports[0].startswith("echo:1: its replica ended with status 1 before it was ready: ")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in reports[0]


async def test_a_replica_gets_an_environment_of_its_own() -> None:
    reports = await reports_of(Telling, bool)
    assert "before it was ready: 3 (" in reports[0]


async def test_a_replica_that_the_system_does_not_start_leaves_the_pool_alive() -> None:
    reports = await reports_of(Refused, lambda said: len(said) >= 2)
    assert "it cannot be started: Permission denied" in reports[0]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("os.pipe", OSError(errno.EMFILE, "Too many open files")),
        ("os.dup", OSError(errno.EMFILE, "Too many open files")),
        ("asyncio.create_subprocess_exec", RuntimeError("can't start new thread")),
    ],
)
async def test_a_replica_for_which_files_or_threads_are_lacking_leaves_the_pool_alive(
    monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    def lacking(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(call, lacking)
    before = psutil.Process().num_fds()
    reports = await reports_of(Telling, lambda said: len(said) >= 2)
    assert psutil.Process().num_fds() == before
    assert f"it cannot be started: {error.args[-1]} (" in reports[0]


async def test_a_replica_that_ends_after_it_was_ready_does_not_fail_its_deployment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = 2 * MOST_EARLY_DEATHS
    reports = await reports_of(
        Flapping, lambda _: caplog.text.count("echo:1 ended with status 7") >= ends
    )
    assert reports == []


def test_a_replica_does_not_import_from_the_working_directory() -> None:
    chosen = settings()
    entry = find(scan(chosen.model_path, chosen), "echo", 1)
    assert "-P" in ReplicaPlan(entry, "cpu").command


async def test_a_replica_that_ends_by_itself_while_the_pool_stops_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = settings()
    entry = find(scan(chosen.model_path, chosen), "echo", 1)
    reports: list[object] = []
    replicas = Pool([Dying(entry, "cpu")], dict(os.environ), lambda *what: reports.append(what), 20)
    start = asyncio.create_subprocess_exec

    async def ended(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        """As a start that is so slow that the pool is told to stop, and the child has ended."""
        child = await start(*command, **options)
        replicas.stop()
        await child.wait()
        return child

    monkeypatch.setattr(asyncio, "create_subprocess_exec", ended)
    await asyncio.wait_for(replicas.run(), 20)
    assert reports == []
