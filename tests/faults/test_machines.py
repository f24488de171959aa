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
from redis.asyncio import Redis

from inferstack.queue.connection import connect
from tests.faults.cluster import MODEL, NAME, Cluster
from tests.faults.ledger import Ledger
from tests.faults.tally import Tally
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
MEMBERS = ("first", "second")
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


async def lose(cluster: Cluster, here: Machines, how: Kill, seed: int) -> Tally:
    """A machine dies at a random moment, is started again, and all is served again."""
    async with connect(cluster.redis.url) as redis:
        before = await workers(redis)
        # Ray may have placed both replicas on one machine.
        name, lost = next(
            (name, lost) for name in MEMBERS if (lost := on_machine(before, here.running[name]))
        )
        async with load(cluster, seed) as ledger:
            await asyncio.sleep(random.Random(seed).uniform(0.1, 0.6))
            await asyncio.to_thread(how, here.running[name])
            ledger.tally.faults += 1
            here.member(name)
        while lost & await workers(redis):
            await asyncio.sleep(0.1)
    return ledger.tally


async def workers(redis: Redis) -> set[str]:
    """The names of all replicas, once they serve."""
    return {replica.worker for replica in await replicas(redis, NAME, 2)}


def on_machine(workers: set[str], machine: "subprocess.Popen[bytes]") -> set[str]:
    """Those that run there; a name is `host:process:random`."""
    processes = {str(each.pid) for each in psutil.Process(machine.pid).children(recursive=True)}
    return {worker for worker in workers if worker.split(":")[1] in processes}


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
        for name in MEMBERS:
            here.member(name)
            await here.joined(name)
        async with cluster.kept():
            for number, how in enumerate((kill_ray, kill)):
                tally = await lose(cluster, here, how, seed + number)
                assert (tally.accepted, tally.lost, tally.doubled) == (TASKS, 0, 0)
