"""Real replica processes on a real Redis: as a pool of plain processes, and on Ray Serve."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import psutil
import pytest
from redis.asyncio import Redis

from inferstack.config import Settings, as_environment
from inferstack.deployment import Deployment, DeploymentState
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.task import TaskState
from inferstack.telemetry import peers, pulse
from inferstack.worker import ray_settings

from .callers import Callers
from .fakes import settings as make_settings
from .machines import replicas

MODELS = Path(__file__).parents[2] / "models"
BROKEN = "class Model:\n    def load(self, path, device):\n        raise ValueError('no weights')\n"
BROKEN += "    def predict(self, inputs):\n        return inputs\n"
ELASTIC = "engine: python\nbatch: {max_size: 1}\n"
ELASTIC += "replicas: {min: 1, max: 2, downscale_delay: 2}\n"
SLOW = """
import asyncio, sys, threading, time

def stop_the_loop():
    (worker,) = [thread for thread in threading.enumerate() if thread.name == "worker"]
    frame = sys._current_frames()[worker.ident]
    while not isinstance(frame.f_locals.get("self"), asyncio.Runner):
        frame = frame.f_back
    frame.f_locals["self"].get_loop().call_soon_threadsafe(time.sleep, 60)

class Model:
    def load(self, path, device):
        self.stuck = path / "stuck"
    def predict(self, inputs):
        if "stick" in inputs[0] and not self.stuck.exists():
            self.stuck.touch()
            stop_the_loop()
        time.sleep(inputs[0].get("sleep", 0))
        return inputs
"""
"""A model that can stop the event loop of its worker, once."""
NOISE = (
    "\x1b",
    "_ray_timestamp_ns",
    "SIGTERM handler",
    "[repeated",
    "is starting ",
    "Connecting to existing Serve",
    "graceful_shutdown failed",
    "Warning",
)
"""What makes the worker's log hard to read."""
DIES = "import os, sys\nprint('no such device', file=sys.stderr)\nos._exit(9)\n"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository with echo and models that are wrong, do not load, die, or find no GPU."""
    root = tmp_path / "models"
    shutil.copytree(MODELS / "echo", root / "echo", ignore=shutil.ignore_patterns("__pycache__"))
    patient = root / "echo" / "1" / "config.yaml"
    patient.write_text(patient.read_text().replace("timeout: 30", "timeout: 40"))
    for name, config, code in (
        ("elastic", ELASTIC, SLOW),
        ("wrong", "engine: magic\n", ""),
        ("raises", "engine: python\nreplicas: 1\n", BROKEN),
        ("dies", "engine: python\nreplicas: 1\n", DIES),
        ("huge", "engine: python\ndevice: cuda\nnum_gpus: 64\n", BROKEN),
    ):
        folder = root / name / "1"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(config)
        (folder / "model.py").write_text(code)
    return root


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A working directory with files that are named like modules of the standard library."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for name in ("uuid", "statistics", "fractions", "colorsys", "wave"):
        (folder / f"{name}.py").write_text("raise RuntimeError('imported from here')\n")
    return folder


@pytest.fixture
def settings(models: Path, tmp_path: Path, clean_redis_url: str) -> Settings:
    base = make_settings(
        model_path=models, inferstack_home=tmp_path / "home", lease=2.0, default_model="echo"
    )
    return base.model_copy(update={"redis_url": clean_redis_url, "retry_delay": 0.0})


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(str(settings.redis_url))
    yield client
    await client.aclose()


class Running:
    """A worker program under test."""

    def __init__(
        self,
        module: tuple[str, ...],
        settings: Settings,
        log: Path,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        self.with_ray = module == ("inferstack.worker.serve",)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", *module],
                cwd=folder,
                env=environment or as_environment(settings),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(params=["inferstack.worker.pool", "inferstack.worker.serve"])
def running(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path, trap: Path
) -> Iterator[Running]:
    program = Running((request.param,), settings, tmp_path / "log", trap)
    yield program
    if program.process.poll() is None:
        program.stop()
    peers.sweep(settings.inferstack_home)
    print(program.log.read_text()[-8000:])


async def until(redis: Redis, name: str, state: DeploymentState) -> Deployment:
    async with asyncio.timeout(90):
        while True:
            for deployment in await Registry(redis).all():
                if deployment.name == name and deployment.state is state:
                    return deployment
            await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_replicas_serve_fail_crash_and_drain(
    running: Running, redis: Redis, settings: Settings
) -> None:
    """One story, because Ray takes seconds to start."""
    callers = Callers(redis, settings, "echo:1")
    await until(redis, "echo:1", DeploymentState.READY)
    assert pulse.alive("worker", settings.inferstack_home, ready=True)
    wrong = await until(redis, "wrong:1", DeploymentState.FAILED)
    assert wrong.reason is not None
    assert wrong.reason.startswith("config.yaml line 1: engine:")
    raises = await until(redis, "raises:1", DeploymentState.FAILED)
    assert raises.reason == "ValueError: no weights"
    dies = await until(redis, "dies:1", DeploymentState.FAILED)
    assert dies.reason is not None
    assert "before it was ready" in dies.reason
    huge = await until(redis, "huge:1", DeploymentState.FAILED)
    assert huge.reason is not None
    assert huge.reason.startswith("each replica needs 64 GPUs of one machine, ")
    log = running.log.read_text()
    assert log.index("echo:1 is ready") < log.index("cannot load raises:1")

    task = await callers.finished(await callers.submit({"n": 1}))
    assert task.state is TaskState.COMPLETED
    assert orjson.loads(bytes(task.result or b"")) == {"n": 1}

    task = await callers.finished(await callers.submit({"fail": "on purpose"}))
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert task.error.message == "ValueError: on purpose"
    assert task.attempts == settings.max_attempts

    (before,) = await Registry(redis).replicas("echo:1")
    innocent = await callers.submit({"sleep_ms": 300, "n": 2})
    await callers.seen(innocent, TaskState.RUNNING)
    os.kill(int(before.worker.split(":")[1]), signal.SIGKILL)
    task = await callers.finished(innocent)
    assert task.state is TaskState.COMPLETED
    assert task.execution is not None
    assert task.execution.worker != before.worker
    await _told_once(running.log)

    if running.with_ray:
        await _grows_and_shrinks(Callers(redis, settings, "elastic:1"), redis)
        await _replaced_when_stuck(Callers(redis, settings, "elastic:1"), redis)

    _only_on_loopback(running.process.pid)
    if running.with_ray:
        parent = ray_settings.folder(settings).parent
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    # With Ray, longer than Serve would wait by itself.
    long = 32_000 if running.with_ray else 1500
    began = await callers.submit({"sleep_ms": long, "n": 3})
    await callers.seen(began, TaskState.RUNNING)
    children = psutil.Process(running.process.pid).children(recursive=True)
    assert await asyncio.to_thread(running.stop) == 0
    task = await callers.finished(began)
    assert task.state is TaskState.COMPLETED
    assert task.attempts == 1
    left = {replica.worker for replica in await Registry(redis).replicas("echo:1")}
    assert left <= {before.worker}
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    text = running.log.read_text()
    for noise in NOISE:
        assert noise not in text


async def _grows_and_shrinks(callers: Callers, redis: Redis) -> None:
    """The number of replicas follows the queue, and nothing that was accepted notices."""
    (only,) = await replicas(redis, "elastic:1", 1)
    tasks = [await callers.submit({"sleep": 0.5, "n": number}) for number in range(40)]
    assert only.worker in {each.worker for each in await replicas(redis, "elastic:1", 2)}
    found = [await callers.finished(task_id) for task_id in tasks]
    assert {(task.state, task.attempts) for task in found} == {(TaskState.COMPLETED, 1)}
    assert len({task.execution.worker for task in found if task.execution is not None}) == 2
    await replicas(redis, "elastic:1", 1)


async def _replaced_when_stuck(callers: Callers, redis: Redis) -> None:
    """A replica whose event loop no longer turns is unhealthy: its task is done by another."""
    (before,) = await replicas(redis, "elastic:1", 1)
    task = await callers.finished(await callers.submit({"stick": True}))
    assert (task.state, task.attempts) == (TaskState.COMPLETED, 2)
    assert task.execution is not None
    assert task.execution.worker != before.worker


@pytest.mark.parametrize("idle", [0.0, 0.4, 1.1])
async def test_an_idle_replica_ends_within_seconds_of_sigterm(
    redis: Redis, settings: Settings, tmp_path: Path, idle: float
) -> None:
    command = ("inferstack.worker.process", "--model", "echo", "--version", "1")
    replica = Running(command, settings, tmp_path / "log")
    async with asyncio.timeout(30):
        while not await Registry(redis).replicas("echo:1"):
            await asyncio.sleep(0.02)
    await asyncio.sleep(idle)
    began = time.monotonic()
    assert await asyncio.to_thread(replica.stop) == 0
    assert time.monotonic() - began < 5
    assert await Registry(redis).replicas("echo:1") == []


async def test_a_replica_whose_parent_ended_while_it_loaded_drains_at_once(
    settings: Settings, tmp_path: Path
) -> None:
    with subprocess.Popen(["true"]) as parent:
        pass
    model = ("inferstack.worker.process", "--model", "echo", "--version", "1")
    replica = Running((*model, f"--with-parent={parent.pid}"), settings, tmp_path / "log")
    assert await asyncio.to_thread(replica.process.wait, 30) == 0
    assert "the pool is gone" in replica.log.read_text()


def _only_on_loopback(root: int) -> None:
    processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    for process in processes:
        # A replica that keeps ending may do so just now.
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = connection.laddr.ip.removeprefix("::ffff:")
                    assert address in ("127.0.0.1", "::1"), (process.cmdline()[:3], address)


async def _told_once(log: Path) -> None:
    """Waits until a log tells of the loss of a replica."""
    loss = re.compile(r"replica (?:\S+ )?of echo:1 (?:is gone|was killed)")
    async with asyncio.timeout(30):
        while not loss.search(log.read_text()):
            await asyncio.sleep(0.1)
    assert len(loss.findall(log.read_text())) == 1


@pytest.mark.parametrize("address", ["nobody", "http://nobody:1"])
async def test_an_address_of_ray_that_is_none_is_told_in_one_line(
    settings: Settings, tmp_path: Path, address: str
) -> None:
    wrong = settings.model_copy(update={"ray_address": address})
    environment = as_environment(wrong) | {"BATCHSIZE": "8"}
    del environment["BATCH_SIZE"]
    module = ("inferstack.worker.serve",)
    program = Running(module, wrong, tmp_path / "log", environment=environment)
    assert await asyncio.to_thread(program.process.wait, 60) == 1
    log = program.log.read_text()
    # Once, though it starts itself anew with what Ray needs in its environment.
    assert log.count("BATCHSIZE is no setting") == 1
    assert log.splitlines()[-1].startswith(f"RAY_ADDRESS={address}: ValueError: Invalid")
    assert "Traceback" not in log


async def test_a_pool_without_a_queue_says_what_is_missing() -> None:
    environment = {**as_environment(make_settings()), "REDIS_URL": "", "MODEL_PATH": str(MODELS)}
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "inferstack.worker.pool"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 1
    assert re.fullmatch(r"REDIS_URL is not set.*\n", result.stderr)


def test_a_replica_of_a_python_model_does_not_import_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from inferstack.config import load;"
        "from inferstack.engines.repository import scan, find; from inferstack.worker import host;"
        "import inferstack.worker.process, inferstack.worker.pool;"
        f"s = load(redis_url='redis://x', model_path=Path({str(MODELS)!r}));"
        "host.load('echo', 1, s, 'cpu');"
        "assert not {'torch', 'transformers', 'numpy', 'ray'} & set(sys.modules)"
    )
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - started < 30
