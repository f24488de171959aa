import asyncio
import contextlib
from typing import Any

import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from inferstack.config import load
from inferstack.errors import (
    ConfigurationError,
    InvalidRequestError,
    StorageRefusedError,
    StorageUnavailableError,
)
from inferstack.storage.database import Database, database_url
from tests.services import PostgresServer, free_port


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_the_url_uses_psycopg(scheme: str) -> None:
    url = database_url(f"{scheme}://ann:p%40ss@db:5433/x?sslmode=require")
    assert url.drivername == "postgresql+psycopg"
    assert (url.password, url.port, url.query["sslmode"]) == ("p@ss", 5433, "require")


@pytest.mark.parametrize("url", ["nonsense", "sqlite:///x.db", ""])
def test_another_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        Database(url)


def test_a_missing_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        Database.from_settings(load(database_url=None))


async def test_no_server_is_storage_unavailable() -> None:
    database = Database(f"postgresql://a:b@127.0.0.1:{free_port()}/x")
    with pytest.raises(StorageUnavailableError, match="does not answer"):
        await database.check()
    await database.close()


async def test_a_transaction_that_raises_leaves_nothing_behind(database: Database) -> None:
    insert = text(
        "INSERT INTO models (model, version, state, engine, config) "
        "VALUES ('m', 1, 'ready', 'python', '{}')"
    )

    async def insert_and_raise() -> None:
        async with database.transaction() as connection:
            await connection.execute(insert)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await insert_and_raise()
    async with database.transaction() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM models"))).scalar() == 0


async def test_a_mistake_in_our_sql_is_not_hidden(database: Database) -> None:
    with pytest.raises(ProgrammingError):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1 FROM models GROUP"))


async def test_tables_that_are_not_there_yet_are_waited_for(empty_postgres_url: str) -> None:
    database = Database(empty_postgres_url)
    with pytest.raises(StorageUnavailableError, match="run `inferstack migrate`"):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT model FROM models"))
    await database.close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"username": "nobody"}, 'password authentication failed for user "nobody"'),
        ({"password": "wrong"}, 'password authentication failed for user "inferstack"'),
        ({"password": None}, "no password supplied"),
        ({"database": "none"}, 'database "none" does not exist'),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_who_is_not_let_in_is_told_by_what_setting(
    clean_postgres_url: str, host: str, change: dict[str, Any], reason: str
) -> None:
    url = make_url(clean_postgres_url).set(host=host)
    url = url._replace(**change)
    database = Database(url.render_as_string(hide_password=False))
    with pytest.raises(StorageRefusedError) as caught:
        await database.check()
    assert str(caught.value) == f"DATABASE_URL: PostgreSQL refuses it: {reason}"
    await database.close()


async def test_a_value_that_cannot_be_stored_is_an_invalid_request(database: Database) -> None:
    with pytest.raises(InvalidRequestError, match="cannot hold"):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT CAST(:x AS text)"), {"x": "a\0b"})


async def test_a_server_killed_and_started_again_is_found_again() -> None:
    with PostgresServer() as server:
        database = Database(server.url)
        await database.check()
        await asyncio.to_thread(server.kill)
        with pytest.raises(StorageUnavailableError):
            await database.check()
        # On this thread: the server ends with the thread that starts it.
        server.start()
        await database.check()
        await database.close()


@pytest.mark.parametrize("query", ["", "?options=-c%20application_name%3Dx"])
async def test_a_statement_that_takes_too_long_is_storage_unavailable(
    clean_postgres_url: str, query: str
) -> None:
    database = Database(clean_postgres_url + query, statement_timeout=0.05)
    with pytest.raises(StorageUnavailableError, match="statement timeout"):
        async with database.transaction() as connection:
            await connection.execute(text("SELECT pg_sleep(10)"))
    await database.check()
    await database.close()


async def test_the_url_has_the_last_word_on_the_statement_timeout(clean_postgres_url: str) -> None:
    url = clean_postgres_url + "?options=-c%20statement_timeout%3D7s"
    database = Database(url, statement_timeout=30.0)
    async with database.transaction() as connection:
        assert (await connection.execute(text("SHOW statement_timeout"))).scalar() == "7s"
    await database.close()


async def test_a_server_that_stands_still_is_given_up_and_leaks_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("inferstack.storage.database.CHECKOUT", 0.5)
    with PostgresServer() as server:
        database = Database(server.url, pool_size=1)
        await database.check()
        postmaster = psutil.Process(server.pid)
        frozen = [postmaster, *postmaster.children()]
        for process in frozen:
            process.suspend()
        try:
            # More than the pool and its overflow hold: those left over must be given up as well.
            for _ in range(4):
                with pytest.raises(StorageUnavailableError, match=r"within 0\.5 s"):
                    await database.check()
        finally:
            for process in frozen:
                process.resume()
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(StorageUnavailableError):
                    await asyncio.gather(*(database.check() for _ in range(2)))
                    break
        await database.close()


async def test_at_the_end_nothing_is_left_of_what_was_given_up(
    clean_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.storage.database.CHECKOUT", 0.0)
    database = Database(clean_postgres_url, pool_size=1)
    for _ in range(4):
        with pytest.raises(StorageUnavailableError, match="within 0 s"):
            await database.check()
    await database.close()
    assert database._abandoned | database._closing == set()


async def test_a_connection_that_comes_as_its_caller_goes_is_given_back(
    clean_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(clean_postgres_url)
    connect, kept = database._connect, []

    async def connect_and_go() -> AsyncConnection:
        kept.append(await connect())
        asyncio.get_running_loop().call_soon(asking.cancel)
        return kept[0]

    monkeypatch.setattr(database, "_connect", connect_and_go)
    asking = asyncio.create_task(database.check())
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        while not kept[0].closed:
            await asyncio.sleep(0.01)
    await database.close()
