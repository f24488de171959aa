from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from redis.asyncio import Redis

from inferstack.config import Settings, load
from inferstack.deployment import Deployment, DeploymentState
from inferstack.lifecycle.replica import ReplicaSession
from inferstack.lifecycle.tasks import Tasks
from inferstack.lifecycle.types import Caller
from inferstack.queue.connection import connect
from inferstack.queue.outbox import Outbox
from inferstack.queue.registry import Registry
from inferstack.storage.database import Database
from inferstack.storage.history import History
from inferstack.storage.objects import ObjectStore
from inferstack.task import Execution

ANN = Caller("ann", "ann")
BOB = Caller("bob", "bob")
ROOT = Caller("root", "root", "admin")
ECHO = Deployment(model="echo", version=1, state=DeploymentState.READY, batch_size=8)


class House:
    """The callers' side and one replica of `echo`, moved by hand, on real services."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.redis: Redis = connect(str(settings.redis_url))
        self.database = Database.from_settings(settings)
        self.history = History(self.database)
        self.store = ObjectStore.from_settings(settings)
        self.tasks = Tasks(self.redis, self.store, self.history, settings)
        self.replica = ReplicaSession(self.redis, ECHO, self.store, "host:1:a", settings)

    async def start(self) -> None:
        await Registry(self.redis).put(ECHO)
        await self.tasks.start()

    async def work(self, result: bytes = b'"done"') -> list[str]:
        """Runs everything that waits; returns the ids."""
        leases = await self.replica.claim(100)
        await self.replica.begin(leases)
        run = Execution(self.replica.worker, 1.0, 2.0, len(leases))
        await self.replica.complete([(lease, result, run) for lease in leases])
        return [lease.task_id for lease in leases]

    async def archive(self) -> None:
        """Does what the recorder does, once."""
        outbox = Outbox(self.redis, [ECHO.name], self.settings)
        entries = await outbox.read(1000)
        tasks = [task for task in await outbox.load(entries) if task is not None]
        await self.history.upsert(list({task.spec.task_id: task for task in tasks}.values()))
        finished = [task.spec.task_id for task in tasks if task.state.terminal]
        await outbox.archived(ECHO.name, entries, finished)

    async def stop(self) -> None:
        await self.replica.leave()
        await self.tasks.stop()
        await self.redis.aclose()
        await self.database.close()


@pytest_asyncio.fixture
async def house(
    clean_redis_url: str, clean_postgres_url: str, tmp_path: Path
) -> AsyncIterator[House]:
    settings = load(
        redis_url=clean_redis_url,
        database_url=clean_postgres_url,
        inferstack_home=tmp_path,
        model_path=tmp_path / "models",
        default_model="echo",
        inline_limit=1000,
        max_queue=25,
        max_tenant_queue=10,
        retry_delay=0.0,
    )
    built = House(settings)
    await built.start()
    yield built
    await built.stop()
