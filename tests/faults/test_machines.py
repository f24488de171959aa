"""Machines of a Ray cluster die under load; whoever runs them starts them again."""

import asyncio
import random
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from inferstack.queue.connection import connect
from tests.faults.cluster import MODEL, NAME, Cluster
from tests.faults.ledger import Ledger
from tests.services import free_port
from tests.worker.machines import Machines, kill, machines, replicas

CONFIG = """
engine: python
device: cpu
replicas: auto
threads: 1
batch: {max_size: 8}
timeout: 3
"""
TASKS = 300
SLEEP_MS = 20.0
Kill = Callable[["subprocess.Popen[bytes]"], None]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Has no replicas of its own."""
    address = f"127.0.0.1:{free_port()}"
    secret = "a-token-of-the-tests-own"
    with Cluster(
        replicas=0, model_config=CONFIG, ray_address=address, ray_auth_token=secret
    ) as running:
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))


def kill_ray(machine: "subprocess.Popen[bytes]") -> None:
    """Kills what Ray runs on a machine to place replicas there; the rest notices that."""
    programs = psutil.Process(machine.pid).children(recursive=True)
    (raylet,) = (program for program in programs if program.name() == "raylet")
    raylet.kill()
    assert machine.wait(60) == 1


@asynccontextmanager
async def load(cluster: Cluster, seed: int) -> AsyncIterator[Ledger]:
    """Clients that submit and wait; in the end all is checked."""
    ledger = Ledger(MODEL)
    clients = asyncio.create_task(
        ledger.load(cluster.url, tasks=TASKS, sleep_ms=SLEEP_MS, seed=seed)
    )
    yield ledger
    await clients
    await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    assert not ledger.refused
    assert len(ledger.accepted) == TASKS


async def lose(cluster: Cluster, here: Machines, how: Kill, seed: int) -> None:
    """A machine dies at a random moment, is started again, and serves again."""
    async with connect(cluster.redis.url) as redis:
        before = {replica.worker for replica in await replicas(redis, NAME, 2)}
        async with load(cluster, seed) as ledger:
            await asyncio.sleep(random.Random(seed).uniform(0.1, 0.6))
            await asyncio.to_thread(how, here.running["second"])
            ledger.tally.faults += 1
            here.member("second")
        while len(before & {replica.worker for replica in await replicas(redis, NAME, 2)}) != 1:
            await asyncio.sleep(0.1)


@pytest.mark.alone  # two machines of Ray are as much as a small machine starts in time
@pytest.mark.timeout(300)
async def test_kill_9_of_a_machine_of_ray_loses_nothing(
    cluster: Cluster, tmp_path: Path, seed: int
) -> None:
    """One story, because Ray takes seconds to start."""
    with (
        tempfile.TemporaryDirectory(prefix="is-", ignore_cleanup_errors=True) as folder,
        machines(cluster.settings, Path(folder), tmp_path) as here,
    ):
        here.head()
        for name in ("first", "second"):
            here.member(name)
            await here.joined(name)
        async with cluster.kept():
            await lose(cluster, here, kill_ray, seed)
            await lose(cluster, here, kill, seed + 1)
