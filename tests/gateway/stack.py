"""Two real API processes, on the same port of two addresses: what one name resolves to."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import httpx
import msgspec
import redis

from inferstack.config import as_environment, load
from inferstack.deployment import DeploymentState
from inferstack.engines.repository import scan
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.telemetry import peers
from tests.faults import hazard
from tests.faults.cluster import ADMIN_PASSWORD, MODEL, NAME, until
from tests.faults.process import Process
from tests.services import free_port

FIRST, SECOND = "127.0.0.1", "127.0.0.2"
ESTABLISHED = "01"
"""As /proc/net/tcp has it."""


class Replicated:
    """The API twice, and one replica of a model that does what its input says.

    Nobody archives, so all tasks stay in Redis, where they can be counted.
    """

    def __init__(self, redis_url: str, database_url: str) -> None:
        """Starts nothing; it is a context manager.

        Args:
            redis_url: of an empty Redis.
            database_url: of a migrated database without users.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="inferstack-replicated-"))
        self.port = free_port()
        self.first = Process("api-1", "inferstack.api")
        self.second = Process("api-2", "inferstack.api")
        # The first one lets local callers in, and only those.
        self.second.env = {"HOST": SECOND, "AUTH_REQUIRED": "true"}
        model = ("--model", MODEL, "--version", "1")
        self.replica = Process("replica", "inferstack.worker.process", *model)
        self.settings = load(
            redis_url=redis_url,
            database_url=database_url,
            inferstack_home=self.folder / "home",
            model_path=self.folder / "models",
            default_model=MODEL,
            port=self.port,
            max_body_bytes=64 * 1024,
            secret_key="a secret of thirty-two characters",
            admin_password=ADMIN_PASSWORD,
        )

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [self.first, self.second, self.replica]

    @property
    def addresses(self) -> tuple[str, str]:
        """Of the API processes."""
        return f"{FIRST}:{self.port}", f"{SECOND}:{self.port}"

    @property
    def url(self) -> str:
        """Of the first API process itself."""
        return f"http://{FIRST}:{self.port}"

    def __enter__(self) -> Self:
        try:
            asyncio.run(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.stop()
        peers.sweep(self.folder / "home")
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self, name: str) -> str:
        """What a process said."""
        return (self.folder / f"{name}.log").read_text()

    async def restart(self) -> None:
        """Starts the second API process again and waits until it answers."""
        self._begin(self.second)
        await until(self._answers(SECOND))

    def login(self) -> dict[str, str]:
        """Headers of the administrator."""
        answer = httpx.post(
            f"{self.url}/api/auth/login",
            json={"username": "admin", "password": ADMIN_PASSWORD},
            trust_env=False,
        )
        return {"authorization": f"Bearer {answer.json()['access_token']}"}

    def unread(self) -> int:
        """Connections to the API processes on which something waits to be read."""
        found = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues = line.split()[:5]
            ours = int(local.split(":")[1], 16) == self.port and state == ESTABLISHED
            found += ours and int(queues.split(":")[1], 16) > 0
        return found

    def tasks(self, marker: str) -> list[str]:
        """The payloads of all tasks whose payload begins so; large ones lie elsewhere."""
        with redis.Redis.from_url(str(self.settings.redis_url)) as client:
            keys = list(client.scan_iter(f"is:{{{NAME}}}:t:*", count=1000))
            specs = [client.hget(key, "spec") for key in keys]
        inputs = [json.loads(spec).get("data", {}) for spec in specs if spec is not None]
        payloads = [data.get("payload", "") for data in inputs]
        return [payload for payload in payloads if payload.startswith(marker)]

    async def _start(self) -> None:
        model = self.folder / "models" / MODEL / "1"
        model.mkdir(parents=True)
        shutil.copy(str(hazard.__file__), model / "model.py")
        (model / "config.yaml").write_text(hazard.CONFIG)
        (self.folder / "home").mkdir()
        await self._register()
        for process in self.processes:
            self._begin(process)
        redis = connect(str(self.settings.redis_url))
        try:
            await until(self._answers(FIRST))
            await until(self._answers(SECOND))
            await until(lambda: _lives(Registry(redis)))
        finally:
            await redis.aclose()

    def _begin(self, process: Process) -> None:
        process.start(as_environment(self.settings), self.folder / f"{process.name}.log")

    async def _register(self) -> None:
        redis = connect(str(self.settings.redis_url))
        (entry,) = scan(self.settings.model_path, self.settings)
        deployment = entry.deployment(self.settings)
        ready = msgspec.structs.replace(deployment, state=DeploymentState.READY)
        await Registry(redis).put(ready)
        await redis.aclose()

    def _answers(self, host: str) -> Callable[[], Awaitable[bool]]:
        """Asks whether the API process at this address takes work."""

        async def ask() -> bool:
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                try:
                    answer = await client.get(f"http://{host}:{self.port}/health/ready")
                except httpx.HTTPError:
                    return False
            return answer.status_code == 200

        return ask


async def _lives(registry: Registry) -> bool:
    return bool(await registry.replicas(NAME))
