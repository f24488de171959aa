from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferstack.config import Settings, load
from inferstack.queue.connection import Redis, connect
from inferstack.storage.database import Database
from inferstack.storage.history import History


@pytest.fixture
def settings(clean_redis_url: str, clean_postgres_url: str, tmp_path: Path) -> Settings:
    return load(
        redis_url=clean_redis_url, database_url=clean_postgres_url, inferstack_home=tmp_path
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    database = Database.from_settings(settings)
    yield database
    await database.close()


@pytest.fixture
def history(database: Database) -> History:
    return History(database)


@pytest.fixture
async def redis(clean_redis_url: str) -> AsyncIterator[Redis]:
    redis = connect(clean_redis_url)
    yield redis
    await redis.aclose()
