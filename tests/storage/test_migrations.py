import threading

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from inferstack.errors import ConfigurationError, StorageUnavailableError
from inferstack.storage.database import sync_engine
from inferstack.storage.migrations import migrate
from inferstack.storage.tables import metadata
from tests.services import free_port


def test_the_migrated_schema_is_the_one_that_queries_see(empty_postgres_url: str) -> None:
    migrate(empty_postgres_url)
    engine = sync_engine(empty_postgres_url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []


def test_migrating_again_changes_nothing(empty_postgres_url: str) -> None:
    migrate(empty_postgres_url)
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute(
            "INSERT INTO users (id, username, password_hash, tenant, role) "
            "VALUES (gen_random_uuid(), 'ann', 'x', 'acme', 'user')"
        )
    migrate(empty_postgres_url)
    with psycopg.connect(empty_postgres_url) as connection:
        assert connection.execute("SELECT username FROM users").fetchall() == [("ann",)]


def test_whoever_rolls_back_goes_on_with_the_tables_of_the_later_version(
    empty_postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    migrate(empty_postgres_url)
    with psycopg.connect(empty_postgres_url) as connection:
        connection.execute("ALTER TABLE tasks ADD COLUMN later text")
        connection.execute("UPDATE alembic_version SET version_num = '9999_later'")
    migrate(empty_postgres_url)
    assert "of a later version (9999_later)" in caplog.text
    with psycopg.connect(empty_postgres_url) as connection:
        kept = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    assert kept == [("9999_later",)]


def test_processes_that_migrate_at_once_wait_for_each_other(empty_postgres_url: str) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty_postgres_url)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_large_bodies_are_stored_uncompressed(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(
            "SELECT attname, attstorage FROM pg_attribute "
            "WHERE attrelid = 'tasks'::regclass AND attname IN ('input', 'result')"
        ).fetchall()
    assert dict(rows) == {"input": "e", "result": "e"}


def test_a_database_that_is_not_there_is_said_so() -> None:
    with pytest.raises(StorageUnavailableError, match="PostgreSQL does not answer"):
        migrate(f"postgresql://nobody:x@127.0.0.1:{free_port()}/none")


def test_a_url_of_another_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"mysql://; it takes postgresql://"):
        migrate("mysql://u:p@127.0.0.1/x")
