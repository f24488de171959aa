"""kill -9 of each process of `inferstack up`, alone and in pairs: its supervisor brings it back."""

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import redis

from inferstack.local.processes import ProcessId, alive, identify
from tests.faults.ledger import Ledger
from tests.local.stack import RealStack

NAME = "echo:1"
LOAD = 300
SLEEP_MS = 5.0
MOMENTS = range(20, LOAD * 2 // 3)
"""How many tasks may be accepted when somebody is killed."""
VICTIMS = ("replica", "api", "redis", "recorder", "postgres", "worker", "background")


@pytest.fixture(scope="module", params=["plain"])
def stack(request: pytest.FixtureRequest) -> Iterator[RealStack]:
    folder = Path(tempfile.mkdtemp(prefix="inferstack-faults-"))
    folder.chmod(0o755)
    running = RealStack(folder / "home", ray=request.param == "ray")
    running.up()
    yield running
    running.print_logs()
    running.close()
    shutil.rmtree(folder, ignore_errors=True)


def _replica(stack: RealStack) -> ProcessId | None:
    """A live replica; its name is host:pid:random.

    Only what descends from this stack's own host: by now another process may have the number.
    """
    with redis.Redis.from_url(stack.current().redis_url) as client:
        names = [name.decode() for name in client.hkeys(f"is:{{{NAME}}}:status")]
    host = stack.child("worker").process
    if host is None or not alive(host):
        return None
    ours = {process.pid for process in psutil.Process(host.pid).children(recursive=True)}
    return next((identify(pid) for n in names if (pid := int(n.split(":")[1])) in ours), None)


async def _kill(stack: RealStack, name: str) -> None:
    """Kills a process, once there is one: an earlier kill may be a moment ago."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(redis.RedisError, psutil.NoSuchProcess):
                process = _replica(stack) if name == "replica" else stack.child(name).process
                if process is not None and alive(process):
                    os.kill(process.pid, signal.SIGKILL)
                    return
            await asyncio.sleep(0.05)


async def _under_load(
    stack: RealStack, ledger: Ledger, victims: Sequence[str], rng: random.Random
) -> None:
    """Kills the victims at random moments while clients submit and wait.

    The second one dies soon after the first, which may have stopped all progress.
    """
    url = f"http://127.0.0.1:{stack.port}"
    load = asyncio.create_task(
        ledger.load(url, tasks=LOAD, sleep_ms=SLEEP_MS, seed=rng.randrange(1000))
    )
    moments = sorted(rng.sample(MOMENTS, len(victims)))
    for number, (victim, moment) in enumerate(zip(victims, moments, strict=True)):
        await _progress(ledger, moment, at_most=rng.uniform(0.1, 0.6) if number else 60.0)
        await _kill(stack, victim)
        ledger.tally.faults += 1
        assert not load.done()
    await load


async def _progress(ledger: Ledger, accepted: int, at_most: float) -> None:
    """Returns once so many tasks are accepted, or after `at_most` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(at_most):
            while len(ledger.accepted) < accepted:
                await asyncio.sleep(0.005)


def _kill_and_check(stack: RealStack, victims: Sequence[str], rng: random.Random) -> None:
    ledger = Ledger()
    asyncio.run(_under_load(stack, ledger, victims, rng))
    _check(stack, ledger)


def _check(stack: RealStack, ledger: Ledger) -> None:
    state = stack.current()
    asyncio.run(ledger.check(f"http://127.0.0.1:{stack.port}", state.redis_url, state.database_url))
    assert not ledger.refused
    assert len(ledger.accepted) == LOAD


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", VICTIMS)
def test_kill_9_under_load_loses_nothing(stack: RealStack, victim: str, seed: int) -> None:
    _kill_and_check(stack, [victim], random.Random(f"{seed} {victim}"))


@pytest.mark.timeout(180)
def test_kill_9_of_the_supervisor_under_load_loses_nothing(stack: RealStack, seed: int) -> None:
    """Its children live on; `up` again takes over from them while clients go on."""

    async def run() -> None:
        url = f"http://127.0.0.1:{stack.port}"
        load = asyncio.create_task(ledger.load(url, tasks=LOAD, sleep_ms=SLEEP_MS, seed=seed))
        await _progress(ledger, random.Random(seed).choice(MOMENTS), at_most=60.0)
        await asyncio.to_thread(stack.signal, signal.SIGKILL)
        ledger.tally.faults += 1
        assert not load.done()
        await asyncio.to_thread(stack.wait_ready, stack.begin())
        await load

    ledger = Ledger()
    asyncio.run(run())
    _check(stack, ledger)


@pytest.mark.timeout(180)
def test_kill_9_of_two_under_load_loses_nothing(stack: RealStack, pair: int, seed: int) -> None:
    pairs = list(itertools.permutations(VICTIMS, 2))
    random.Random(f"{seed} pairs").shuffle(pairs)
    _kill_and_check(stack, pairs[pair], random.Random(f"{seed} {pair}"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stack", ["ray"], indirect=True)
def test_kill_9_of_the_host_of_ray_and_of_its_replica_loses_nothing(
    stack: RealStack, seed: int
) -> None:
    """The host is the head of Ray: every replica of this machine ends with it."""
    _kill_and_check(stack, ["replica"], random.Random(f"{seed} ray"))
    _kill_and_check(stack, ["worker"], random.Random(f"{seed} ray"))
