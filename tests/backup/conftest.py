from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inferstack.config import Settings, load
from inferstack.deployment import Deployment
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.storage.database import Database
from inferstack.storage.migrations import migrate
from inferstack.storage.objects import ObjectStore
from tests.local.conftest import folder, home
from tests.recorder.work import Work
from tests.services import RedisServer, S3Server, create_database, drop_database

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["folder", "home"]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with S3Server("old", "new") as server:
        yield server.url


@pytest.fixture(scope="session")
def second_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def old(
    clean_postgres_url: str, clean_redis_url: str, folder: Path
) -> AsyncIterator["Services"]:
    """Services with the deployment `echo:1` and nothing else; objects lie in a folder."""
    settings = load(
        database_url=clean_postgres_url,
        redis_url=clean_redis_url,
        inferstack_home=folder / "old",
    )
    async with Services(settings) as services:
        await Registry(services.redis).put(Deployment(model="echo", version=1))
        yield services


@pytest.fixture
async def new(
    postgres_server_url: str, second_redis: RedisServer, folder: Path
) -> AsyncIterator["Services"]:
    """Services that hold nothing at all."""
    url = create_database(postgres_server_url)
    settings = load(database_url=url, redis_url=second_redis.url, inferstack_home=folder / "new")
    async with Services(settings) as services:
        await services.redis.flushall()
        yield services
    drop_database(postgres_server_url, url)


class Services:
    """A Redis, a database and an object store, as the stack sees them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ObjectStore.from_settings(settings)

    async def __aenter__(self) -> "Services":
        self.redis: Redis = connect(str(self.settings.redis_url))
        self.database = Database.from_settings(self.settings)
        self.work = Work(self.redis, self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()
        await self.database.close()

    def migrate(self) -> None:
        migrate(str(self.settings.database_url))
