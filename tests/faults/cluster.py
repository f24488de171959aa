"""The real processes around a real Redis and PostgreSQL, each started again when it dies.

The supervisor of `inferstack up` waits longer from death to death, which is right for users and
slow for tests that kill the same process again and again: here it is started again at once.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import httpx
import msgspec

from inferstack.concurrency import end
from inferstack.config import as_environment, load
from inferstack.deployment import DeploymentState
from inferstack.engines.repository import scan
from inferstack.queue.connection import Redis, connect
from inferstack.queue.registry import Registry
from inferstack.storage.migrations import migrate
from inferstack.telemetry import peers
from tests.faults import hazard
from tests.faults.process import Process
from tests.services import PostgresServer, RedisServer, free_port

MODEL = "hazard"
NAME = f"{MODEL}:1"
PATIENCE = 60.0
ADMIN_PASSWORD = "a password of the administrator"
SWEEPING = """
import sys
from inferstack.background import app, __main__
app.DUTIES = {"resend": (app.DUTIES["resend"][0], 0.5)}
sys.exit(__main__.main())
"""
"""Celery, which looks for lost tasks twice a second."""


class Cluster:
    """API processes, replicas of a model full of hazards, and a recorder."""

    def __init__(
        self,
        *,
        apis: int = 1,
        replicas: int = 2,
        background: bool = False,
        model_config: str = hazard.CONFIG,
        **settings: object,
    ) -> None:
        """Starts nothing; it is a context manager.

        Args:
            apis: API processes, on one port.
            replicas: of the model.
            background: whether Celery looks for lost tasks all the time.
            model_config: the model's `config.yaml`.
            settings: that differ from what is usual here.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="inferstack-faults-"))
        self.redis, self.postgres = RedisServer(), PostgresServer()
        self.port = free_port()
        self.failpoint = self.folder / "failpoint"
        model = ("--model", MODEL, "--version", "1")
        self.apis = [
            Process(name, "inferstack.api")
            for name in ["api", *(f"api-{number}" for number in range(2, apis + 1))]
        ]
        self.api = self.apis[0]
        self.recorder = Process("recorder", "inferstack.recorder")
        self.replicas = [
            Process(name, "inferstack.worker.process", *model)
            for name in (f"replica-{number}" for number in range(1, replicas + 1))
        ]
        celery = Process("background", "inferstack.background", code=SWEEPING)
        self.background = [celery] if background else []
        self._model_config = model_config
        self._wanted = {"api_processes": apis} | settings

    @property
    def processes(self) -> list[Process]:
        """All of inferstack's."""
        return [*self.apis, self.recorder, *self.replicas, *self.background]

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def objects(self) -> Path:
        """The folder that is the object store."""
        return self.folder / "home" / "objects"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.stop()
        self.redis.close()
        self.postgres.close()
        peers.sweep(self.folder / "home")
        shutil.rmtree(self.folder, ignore_errors=True)

    def http(self) -> httpx.AsyncClient:
        """A plain client, to see what the SDK hides."""
        return httpx.AsyncClient(base_url=self.url, timeout=60.0, trust_env=False, verify=False)

    def log(self, name: str) -> str:
        """What a process said."""
        return (self.folder / f"{name}.log").read_text()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Starts again whatever dies, until the block ends; returns once the API answers."""
        keeper = asyncio.create_task(self._keep())
        try:
            await self.ready()
            yield
        finally:
            await end(keeper)
            if keeper.done() and not keeper.cancelled():
                keeper.result()

    async def ready(self) -> None:
        """Returns once tasks can be submitted and all replicas live."""
        redis = connect(self.redis.url)
        try:
            await until(self._ready)
            await until(lambda: _lives(redis, len(self.replicas)))
        finally:
            await redis.aclose()

    def arm(self, failpoint: str, count: int = 1, action: str = "") -> None:
        """Has the next process that passes a failpoint for the `count`th time die there."""
        self.taken.unlink(missing_ok=True)
        fresh = self.folder / "arming"
        fresh.write_text(f"{failpoint} {count} {action}")
        fresh.rename(self.failpoint)

    @property
    def taken(self) -> Path:
        """Exists once a process has died where it was told to."""
        return self.failpoint.with_name("failpoint.taken")

    async def fired(self) -> None:
        """Returns once a process has died at the failpoint, or was stopped there."""
        await until(self._fired)

    async def stopped(self) -> Process:
        """The process that the failpoint has stopped."""
        await self.fired()
        found: list[Process] = []

        async def look() -> bool:
            found[:] = [process for process in self.processes if process.stopped]
            return bool(found)

        await until(look)
        return found[0]

    async def _fired(self) -> bool:
        return self.taken.exists()

    async def _ready(self) -> bool:
        try:
            async with httpx.AsyncClient(timeout=2.0, trust_env=False, verify=False) as client:
                return (await client.get(f"{self.url}/health/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    def _start(self) -> None:
        self.folder.chmod(0o755)
        model = self.folder / "models" / MODEL / "1"
        model.mkdir(parents=True)
        shutil.copy(str(hazard.__file__), model / "model.py")
        (model / "config.yaml").write_text(self._model_config)
        self.redis.start()
        self.postgres.start()
        migrate(self.postgres.url)
        usual: dict[str, object] = {
            "redis_url": self.redis.url,
            "database_url": self.postgres.url,
            "inferstack_home": self.folder / "home",
            "model_path": self.folder / "models",
            "default_model": MODEL,
            "port": self.port,
            "failpoint_file": self.failpoint,
            "lease": 2.0,
            "retry_delay": 0.05,
            "max_retry_delay": 0.5,
            "inline_limit": 4096,
            "secret_key": "a secret of thirty-two characters",
            "admin_password": ADMIN_PASSWORD,
            # What the suite kills in a minute would open any circuit.
            "breaker": False,
        }
        self.settings = load(**(usual | self._wanted))
        (self.folder / "home").mkdir(exist_ok=True)
        self._environment = as_environment(self.settings)
        asyncio.run(self._register())
        for process in self.processes:
            self._begin(process)

    def _begin(self, process: Process) -> None:
        process.start(self._environment, self.folder / f"{process.name}.log")

    async def _register(self) -> None:
        redis = connect(self.redis.url)
        (entry,) = scan(self.settings.model_path, self.settings)
        deployment = entry.deployment(self.settings)
        ready = msgspec.structs.replace(deployment, state=DeploymentState.READY)
        await Registry(redis).put(ready)
        await redis.aclose()

    async def _keep(self) -> None:
        while True:
            for server in (self.redis, self.postgres):
                if server.process is not None and server.process.poll() is not None:
                    server.start()
            for process in self.processes:
                if process.wanted and process.dead:
                    self._begin(process)
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    """Waits for a condition, with a limit."""
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.05)


async def _lives(redis: Redis, count: int) -> bool:
    replicas = await Registry(redis).replicas(NAME)
    return len(replicas) >= count
