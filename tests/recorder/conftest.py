from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from inferstack.config import Settings, load
from inferstack.queue.connection import connect
from inferstack.queue.outbox import Outbox
from inferstack.storage.database import Database
from inferstack.storage.history import History
from tests.recorder.work import NAME, Work

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture
def settings(clean_postgres_url: str, clean_redis_url: str) -> Settings:
    return load(database_url=clean_postgres_url, redis_url=clean_redis_url)


@pytest.fixture
async def redis(clean_redis_url: str) -> "AsyncIterator[Redis]":
    client = connect(clean_redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def history(clean_postgres_url: str) -> AsyncIterator[History]:
    database = Database(clean_postgres_url)
    yield History(database)
    await database.close()


@pytest.fixture
def outbox(redis: "Redis", settings: Settings) -> Outbox:
    return Outbox(redis, [NAME], settings)


@pytest.fixture
def work(redis: "Redis", settings: Settings) -> Work:
    return Work(redis, settings)
