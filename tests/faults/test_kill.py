"""kill -9 of each process, under load: nothing accepted is lost, nothing is done twice visibly."""

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from inferstack.local.processes import ProcessId, identify
from inferstack.local.state import StackState
from inferstack.local.state import read as read_state
from tests.faults.ledger import Ledger
from tests.local.stack import RealStack

NAME = "echo:1"
LOAD = 300
SLEEP_MS = 5.0


@pytest.fixture(scope="module")
def stack() -> Iterator[RealStack]:
    folder = Path(tempfile.mkdtemp(prefix="inferstack-faults-"))
    folder.chmod(0o755)
    running = RealStack(folder / "home")
    running.up()
    yield running
    running.close()
    shutil.rmtree(folder, ignore_errors=True)


def _state(stack: RealStack) -> StackState:
    found = read_state(stack.home.state_file)
    assert found is not None
    return found


def _replica(stack: RealStack) -> ProcessId:
    """The process of a live replica; its name is host:pid:random."""
    with redis.Redis.from_url(_state(stack).redis_url) as client:
        (worker, *_) = client.hkeys(f"is:{{{NAME}}}:status")
    process = identify(int(worker.decode().split(":")[1]))
    assert process is not None
    return process


def _victim(stack: RealStack, name: str) -> ProcessId:
    process = _replica(stack) if name == "replica" else stack.child(name).process
    assert process is not None
    return process


async def _under_load(stack: RealStack, ledger: Ledger, victim: str, seed: int) -> None:
    """Kills the victim at a random moment while clients submit and wait."""
    rng = random.Random(seed)
    url = f"http://127.0.0.1:{stack.port}"
    load = asyncio.create_task(ledger.load(url, tasks=LOAD, sleep_ms=SLEEP_MS, seed=seed))
    await asyncio.sleep(rng.uniform(0.1, 0.6))
    process = _victim(stack, victim)
    os.kill(process.pid, signal.SIGKILL)
    await load


@pytest.mark.timeout(180)
@pytest.mark.parametrize("victim", ["replica", "api", "redis", "recorder", "postgres", "worker"])
def test_kill_9_under_load_loses_nothing(stack: RealStack, victim: str) -> None:
    ledger = Ledger()
    asyncio.run(_under_load(stack, ledger, victim, seed=sum(victim.encode())))
    assert not ledger.refused
    assert len(ledger.accepted) == LOAD
    state = _state(stack)
    url = f"http://127.0.0.1:{stack.port}"
    asyncio.run(ledger.check(url, state.redis_url, state.database_url))
