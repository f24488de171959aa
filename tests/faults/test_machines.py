"""Machines join a Ray cluster, die under load and are started again, and leave it."""

import asyncio
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from inferstack.config import Settings, as_environment
from inferstack.errors import ConfigurationError
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.telemetry import pulse
from inferstack.worker import ray_cluster, ray_token
from tests.faults import hazard
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
WAITING = "waiting for Ray at 127.0.0.1:"
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


def models_for_a_gpu(repository: Path) -> list[str]:
    """Adds models that run on a GPU only; returns their names."""
    names = ["one", "two", "three"]
    for name in names:
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("engine: python\ndevice: cuda\ntimeout: 3\n")
        shutil.copy(str(hazard.__file__), folder / "model.py")
    return [f"{name}:1" for name in names]


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


@pytest.mark.timeout(400)
async def test_machines_that_join_die_and_leave_lose_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """One story, because Ray takes seconds to start."""
    with (
        tempfile.TemporaryDirectory(prefix="is-", ignore_cleanup_errors=True) as folder,
        machines(cluster.settings, Path(folder), tmp_path) as here,
    ):
        async with connect(cluster.redis.url) as redis:
            await join(cluster, here, redis, monkeypatch)
        assert pulse.alive("node", tmp_path / "first", ready=True)
        await strangers_are_told(cluster.settings, tmp_path)
        async with cluster.kept():
            for number, how in enumerate((kill_ray, kill)):
                tally = await lose(cluster, here, how, seed + number)
                assert (tally.accepted, tally.lost, tally.doubled) == (TASKS, 0, 0)
            await leave(cluster, here, seed)


async def join(
    cluster: Cluster, here: Machines, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one comes before there is a head, and has a GPU, for which Ray takes its word."""
    sharing = models_for_a_gpu(cluster.settings.model_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    here.start("first", "--num-cpus=1", "--num-gpus=1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    async with asyncio.timeout(60):
        while WAITING not in here.log("first"):
            await asyncio.sleep(0.05)
    here.head()
    (first,) = await replicas(redis, NAME, 1)
    devices = [status.device for name in sharing for status in await replicas(redis, name, 1)]
    assert devices == ["cuda:3"] * 3
    assert here.log("first").count(WAITING) == 1

    here.member("second")
    assert first.worker in await workers(redis), "it was started anew"


async def leave(cluster: Cluster, here: Machines, seed: int) -> None:
    """One machine leaves under load, then the head, then the machine that is left."""
    async with connect(cluster.redis.url) as redis:
        serving = await workers(redis)
        leaving = next(name for name in MEMBERS if on_machine(serving, here.running[name]))
        (left,) = set(MEMBERS) - {leaving}
        ledger, drain = Ledger(MODEL), asyncio.create_task(end(here.running[leaving]))
        while not drain.done():
            await ledger.load(cluster.url, tasks=TASKS // 10, sleep_ms=SLEEP_MS, seed=seed)
        await drain
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
        assert not ledger.refused
        assert {row.attempts for row in ledger.rows.values()} == {1}
        await replicas(redis, NAME, 1)

        programs = psutil.Process(here.running["head"].pid).children(recursive=True)
        await end(here.running["head"])
        assert await Registry(redis).replicas(NAME) == []
    programs += psutil.Process(here.running[left].pid).children(recursive=True)
    await end(here.running[left])  # there is nobody left to give its replicas to
    _, alive = psutil.wait_procs(programs, timeout=10)
    assert alive == []


async def end(machine: "subprocess.Popen[bytes]") -> None:
    """Tells a machine to leave, which it does in order."""
    machine.terminate()
    assert await asyncio.to_thread(machine.wait, 60) == 0


async def strangers_are_told(settings: Settings, home: Path) -> None:
    """What a machine or `serve` with a wrong token says, at once and in one line."""
    ray_token.check(settings)
    wrong = settings.model_copy(
        update={"ray_auth_token": SecretStr("of-another-cluster"), "inferstack_home": home / "own"}
    )
    refusal = f"RAY_AUTH_TOKEN: Ray at {settings.ray_address} refuses this token: "
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "inferstack.worker.node"],
        env=as_environment(wrong),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{refusal}it takes that of the cluster's head\n"
    with pytest.raises(ConfigurationError, match=re.escape(refusal)):
        ray_cluster.start(wrong)
    with pytest.raises(ConfigurationError, match="RAY_AUTH_TOKEN is not set, and Ray at"):
        ray_cluster.start(settings.model_copy(update={"ray_auth_token": None}))
