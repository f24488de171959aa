"""Dumps of the whole database, by the tools of PostgreSQL."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, func, inspect, select, text

from inferstack.config import inherited
from inferstack.errors import BackupError
from inferstack.storage.database import database_url, sync_engine, translated
from inferstack.storage.tables import tasks

SOME = 20
"""Objects that are looked for in the object store, to see whether it is the right one."""


class Condition(NamedTuple):
    """What a database is before it is dumped, or before a dump is restored into it."""

    major: int
    """The major version of the server."""
    tables: list[str]
    revision: str | None
    """The version of inferstack's tables; None if there are none."""
    keys: list[str]
    """Of the newest objects that tasks refer to, a few."""


def look(url: str) -> Condition:
    """Asks the server.

    Raises:
        ConfigurationError: the URL is not one of PostgreSQL.
        StorageUnavailableError: it does not answer.
    """
    engine = sync_engine(url)
    try:
        with translated(), engine.connect() as connection:
            tables = sorted(inspect(connection).get_table_names())
            if "alembic_version" not in tables:
                return Condition(_major(connection), tables, None, [])
            return Condition(
                _major(connection), tables, _revision(connection), _newest_keys(connection)
            )
    finally:
        engine.dispose()


def dump(tool: Path, url: str, target: Path) -> None:
    """Writes everything that a database holds at this moment into a file.

    Args:
        tool: a `pg_dump` of the server's major version or a newer one.
        url: DATABASE_URL.
        target: where to.

    Raises:
        BackupError: it failed; carries the line that says why.
    """
    _run([tool, "--format=custom", f"--file={target}"], url)


def restore(tool: Path, url: str, source: Path) -> None:
    """Puts a dump into an empty database, whole or not at all.

    Args:
        tool: a `pg_restore` of the major version of the `pg_dump` or a newer one.
        url: DATABASE_URL.
        source: the dump.

    Raises:
        BackupError: it failed; carries the line that says why.
    """
    # Owners and grants may name users that this server does not have.
    how = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    _run([tool, *how, source], url)


def _run(command: Sequence[Path | str], url: str) -> None:
    tool, *arguments = command
    parsed = database_url(url)
    where: dict[str, Any] = parsed.translate_connect_args(username="user", database="dbname")
    where |= parsed.query
    where.pop("password", None)
    done = subprocess.run(
        [tool, f"--dbname={make_conninfo(**where)}", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        # On the command line everybody on this machine could read it.
        env=inherited(PGPASSWORD=parsed.password, LC_ALL="C") if parsed.password else None,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        # Behind it may stand the statement that failed, which says less.
        line = next((line for line in said if "error:" in line), said[-1])
        raise BackupError(f"{tool} failed: {line}")


def _major(connection: Connection) -> int:
    number = connection.execute(text("SHOW server_version_num")).scalar_one()
    return int(number) // 10_000


def _revision(connection: Connection) -> str | None:
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    return str(found[0]) if found else None


def _newest_keys(connection: Connection) -> list[str]:
    key = func.coalesce(tasks.c.result_ref, tasks.c.input_ref)
    query = select(key).where(key.is_not(None)).order_by(tasks.c.id.desc()).limit(SOME)
    return list(connection.execute(query).scalars())
