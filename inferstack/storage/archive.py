"""Writes batches of tasks: one statement for each, whatever is in them."""

import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Error as DriverError
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from inferstack.errors import StorageUnavailableError
from inferstack.storage.database import Database
from inferstack.storage.rows import COLUMNS, UNENCODABLE, encode_columns
from inferstack.task import Task, TaskError
from inferstack.telemetry.logs import tell

log = logging.getLogger(__name__)

REFUSALS = ("22", "23", "54")
"""SQLSTATE classes that are about a value, not about the server: data exception, integrity
violation, and a program limit (JSON nested deeper than the server's stack, a row too long)."""

KEPT = ("id", "created_at")
"""Columns that stay as they were written first: Redis counts from anew what it had lost."""


class _Array(bytes):
    """An array in PostgreSQL's binary format."""


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return bytes(obj)


class _RefusedError(Exception):
    """PostgreSQL does not take one of these rows; the others are not to blame."""


def _upsert() -> str:
    names = ", ".join(COLUMNS)
    arrays = ", ".join(f"%b::{kind}[]" for kind in COLUMNS.values())
    changes = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in KEPT)
    return (
        f"INSERT INTO tasks ({names}) SELECT * FROM unnest({arrays}) "
        f"ON CONFLICT (id) DO UPDATE SET {changes}, recorded_at = now() "
        # The end of a task stands. A Redis that lost the last second may run it again, and end it
        # at an earlier version than one that stands here.
        "WHERE tasks.state IN ('queued', 'running') "
        "AND (excluded.state_version > tasks.state_version "
        "OR excluded.state NOT IN ('queued', 'running')) RETURNING id"
    )


UPSERT = _upsert()

SETTLE = text(
    "UPDATE tasks SET redriven_at = now() "
    "WHERE id = :old AND redriven_as = :new AND redriven_at IS NULL"
)


class Archive:
    """The writing half of the history."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database

    async def write(self, tasks: Sequence[Task]) -> set[str]:
        """Stores tasks; see `History.upsert`."""
        latest: dict[str, Task] = {}
        for task in tasks:
            known = latest.get(task.spec.task_id)
            if known is None or known.version < task.version:
                latest[task.spec.task_id] = task
        if not latest:
            return set()
        # By id: neighbours share index pages, and two recorders lock rows in the same order.
        rows = [latest[task_id] for task_id in sorted(latest)]
        async with self._database.transaction() as connection:
            await _settle(connection, rows)
            return await _write(connection, rows)


async def _write(connection: AsyncConnection, tasks: Sequence[Task]) -> set[str]:
    """Stores tasks, halving a refused batch until the row to blame is alone.

    Halves are stored one by one: the version in each row makes a repetition harmless, so one
    transaction around them would only cost round trips.
    """
    try:
        return await _insert(connection, tasks)
    except _RefusedError as refusal:
        if len(tasks) == 1:
            return await _write_without_bodies(connection, tasks[0], str(refusal.__cause__))
    half = len(tasks) // 2
    first = await _write(connection, tasks[:half])
    return first | await _write(connection, tasks[half:])


async def _settle(connection: AsyncConnection, tasks: Sequence[Task]) -> None:
    """Notes with the dead letters that these tasks repeat that they were redriven.

    In the transaction that archives the new task, so that none is ever archived while its
    dead letter looks as if nobody had redriven it; see `storage/dead_letters.py`. It comes
    first: after a statement of this transaction `_insert` makes savepoints in it, and else
    transactions of its own.
    """
    pairs = [(t.spec.redrive_of, t.spec.task_id) for t in tasks if t.spec.redrive_of]
    if pairs:
        rows = [{"old": UUID(old), "new": UUID(new)} for old, new in sorted(pairs)]
        await connection.execute(SETTLE, rows)


async def _write_without_bodies(connection: AsyncConnection, task: Task, reason: str) -> set[str]:
    what = f"is archived without its input and result: {reason}"
    tell(log, logging.WARNING, what, [task.spec.task_id])
    note = f"input and result are not kept: {reason}"
    error = TaskError(
        type=task.error.type if task.error else "not-archived",
        message=f"{task.error.message}; {note}" if task.error else note,
        retryable=task.error.retryable if task.error else False,
    )
    bare = msgspec.structs.replace(
        task,
        spec=msgspec.structs.replace(task.spec, data=None, metadata=None),
        result=None,
        error=error,
    )
    try:
        return await _insert(connection, [bare])
    except _RefusedError as refusal:
        # Blocking the outbox for good would cost every later task its place in history.
        what = f"cannot be archived: {refusal.__cause__}"
        tell(log, logging.ERROR, what, [task.spec.task_id])
        return set()


async def _insert(connection: AsyncConnection, tasks: Sequence[Task]) -> set[str]:
    """One statement: a transaction of its own, or a savepoint of that which `_settle` began.

    Returns the ids of the rows that it wrote.

    Raises:
        _RefusedError: a row has no place in the table; the cause says why.
        StorageUnavailableError: PostgreSQL does not answer.
    """
    try:
        columns = encode_columns(tasks)
    except UNENCODABLE as error:
        raise _RefusedError from error
    raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None, "the connection is open"
    try:
        async with raw.transaction(), raw.cursor() as cursor:
            cursor.adapters.register_dumper(_Array, _ArrayDumper)
            await cursor.execute(UPSERT, [_Array(column) for column in columns])
            if cursor.rowcount == len(tasks):
                return {task.spec.task_id for task in tasks}  # nearly always: parses no id
            return {str(key) for (key,) in await cursor.fetchall()}
    except DriverError as error:
        if (error.sqlstate or "")[:2] in REFUSALS:
            raise _RefusedError from error
        raise StorageUnavailableError(f"PostgreSQL did not store the batch: {error}") from error
