"""Real services for every test that asks for one. A missing service fails, it never skips."""

import os
from collections.abc import Iterator

import psycopg
import pytest
import redis

from inferstack.storage.migrations import migrate
from tests.services import (
    PostgresServer,
    RedisServer,
    create_database,
    drop_database,
    remove_templates,
)

pytest_plugins = ["tests.faults.plugin", "tests.turns"]


def pytest_unconfigure() -> None:
    remove_templates()


@pytest.fixture(scope="session")
def postgres_server_url() -> Iterator[str]:
    """URL of a PostgreSQL server: TEST_DATABASE_URL, or a throwaway one."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    with PostgresServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url(postgres_server_url: str) -> Iterator[str]:
    """URL of a migrated database that this session alone uses."""
    url = create_database(postgres_server_url)
    migrate(url)
    yield url
    drop_database(postgres_server_url, url)


@pytest.fixture
def clean_postgres_url(postgres_url: str) -> str:
    """The same database with every table empty."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("TRUNCATE tasks, usage, usage_removed, models, api_keys, users CASCADE")
    return postgres_url


@pytest.fixture
def empty_postgres_url(postgres_server_url: str) -> Iterator[str]:
    """URL of a database without any table, for tests of the migrations."""
    url = create_database(postgres_server_url)
    yield url
    drop_database(postgres_server_url, url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A throwaway Redis or Valkey that this session alone uses."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """URL of the session's Redis, with whatever earlier tests left in it."""
    return redis_server.url


@pytest.fixture
def clean_redis_url(redis_url: str) -> str:
    """URL of the session's Redis, emptied."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url
