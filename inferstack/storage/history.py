"""What became of every task: one row each, written in batches by the recorder."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Text, cast, select

from inferstack.errors import wrong_field
from inferstack.storage.archive import Archive
from inferstack.storage.database import Database
from inferstack.storage.rows import decode_row
from inferstack.storage.tables import tasks as table
from inferstack.storage.usage import remove
from inferstack.task import TERMINAL, Priority, Task, TaskState

CLOCK_SLACK = 3600.0
"""Seconds by which the clock in a task's id (the API's) may be off from Redis's."""

BODIES = ("input", "result")
DOCUMENTS = (*BODIES, "error", "metadata")


class HistoryFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tasks to list; a field left out does not restrict."""

    status: TaskState | None = None
    model: str | None = None
    priority: Priority | None = None
    since: float | None = None
    """Unix seconds: tasks created at this time or later."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    cursor: str | None = None
    """`next_cursor` of the page before."""


class HistoryPage(msgspec.Struct, frozen=True):
    """A page of tasks, newest first, without their inputs and results."""

    tasks: list[Task]
    next_cursor: str | None
    """None on the last page."""


class OldTask(NamedTuple):
    """A finished task that is older than the retention, and its keys in the object store."""

    task_id: str
    keys: list[str]


class History:
    """The tasks in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database
        self._archive = Archive(database)

    async def upsert(self, tasks: Sequence[Task]) -> set[str]:
        """Stores tasks. Safe to repeat.

        A row of a task that has ended stays, whatever comes later. One of an unfinished task gives
        way to a later version and to any end. A task whose row PostgreSQL refuses is stored
        without its input, result and metadata and with an error that says so.

        Args:
            tasks: any number; a few hundred is cheapest.

        Returns:
            The ids of the tasks whose rows it wrote.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer; all, some or none may be stored.
        """
        return await self._archive.write(tasks)

    async def get(self, task_id: str) -> Task | None:
        """One task with its input (as `msgspec.Raw`) and result; None if it is not archived.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        key = as_uuid(task_id)
        if key is None:
            return None
        async with self._database.transaction() as connection:
            found = await connection.execute(select(*columns()).where(table.c.id == key))
            row = found.one_or_none()
        return None if row is None else decode_row(row)

    async def older_than(self, days: float, limit: int) -> list[OldTask]:
        """The oldest finished tasks past the retention, and the objects that hold their bodies.

        The caller deletes the objects first and the tasks then, so that a crash between the
        two leaves nothing behind that nobody knows of.

        Args:
            days: how long tasks are kept after they finished.
            limit: at most so many.
        """
        until = datetime.now(UTC).timestamp() - days * 86400.0
        query = (
            select(table.c.id, table.c.input_ref, table.c.result_ref)
            .where(
                table.c.id < first_id(until + CLOCK_SLACK),
                table.c.state.in_([state.value for state in TERMINAL]),
                table.c.completed_at < datetime.fromtimestamp(until, UTC),
            )
            .order_by(table.c.id)
            .limit(limit)
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [OldTask(str(key), [ref for ref in refs if ref]) for key, *refs in rows]

    async def delete(self, task_ids: Sequence[str]) -> None:
        """Removes tasks; those that are gone already do no harm."""
        async with self._database.transaction() as connection:
            await remove(connection, task_ids)

    async def unknown(self, task_ids: AbstractSet[str]) -> AbstractSet[str]:
        """Those of the ids that no row has."""
        keys = [UUID(task_id) for task_id in task_ids]
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(table.c.id).where(table.c.id.in_(keys)))
            return task_ids - {str(key) for (key,) in rows}

    # Last, because its name hides the type in what follows.
    async def list(self, tenant: str | None, filter: HistoryFilter) -> HistoryPage:
        """A page of tasks, newest first.

        Args:
            tenant: whose tasks; None for everybody's.
            filter: which of them.

        Raises:
            InvalidRequestError: the cursor is not one of ours.
            ListsBusyError: too many wait for theirs already.
            StorageUnavailableError: PostgreSQL does not answer, or not in time.
        """
        query = (
            select(*columns(without=BODIES))
            .where(*_conditions(tenant, filter))
            .order_by(table.c.id.desc())
            .limit(filter.limit + 1)
        )
        async with self._database.list_transaction() as connection:
            rows = (await connection.execute(query)).all()
        page = [decode_row(row) for row in rows[: filter.limit]]
        more = len(rows) > filter.limit
        return HistoryPage(page, page[-1].spec.task_id if more else None)


def columns(without: Sequence[str] = ()) -> list[ColumnElement[Any]]:
    """The columns for `decode_row`: documents as text, since they are handed on unparsed."""
    return [
        cast(column, Text).label(column.name) if column.name in DOCUMENTS else column
        for column in table.c
        if column.name not in without
    ]


def _conditions(tenant: str | None, filter: HistoryFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if tenant is not None:
        found.append(table.c.tenant == tenant)
    if filter.status is not None:
        found.append(table.c.state.in_(_archived_as(filter.status)))
        if filter.status is not TaskState.COMPLETED:
            # Said again as the partial index says it: a parameter does not prove it.
            found.append(table.c.state != "completed")
    if filter.model is not None:
        found.append(table.c.model == filter.model)
    if filter.priority is not None:
        found.append(table.c.priority == filter.priority.value)
    if filter.since is not None:
        found += _since(filter.since)
    if filter.cursor is not None:
        key = as_uuid(filter.cursor)
        if key is None:
            raise wrong_field("cursor", "takes the next_cursor of a page")
        found.append(table.c.id < key)
    return found


def _since(seconds: float) -> list[ColumnElement[bool]]:
    """The bound on the id makes the index scan end; the one on `created_at` is exact."""
    try:
        time = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise wrong_field("since", "takes a recent time") from None
    return [table.c.id >= first_id(seconds - CLOCK_SLACK), table.c.created_at >= time]


def first_id(seconds: float) -> UUID:
    """The lowest UUIDv7 of a time; task ids carry milliseconds in their first 48 bits."""
    millis = min(max(int(seconds * 1000), 0), (1 << 48) - 1)
    return UUID(int=millis << 80)


def as_uuid(written: str) -> UUID | None:
    """An id as the database holds it; None if it is none, or written in another way."""
    try:
        key = UUID(written)
    except ValueError:
        return None
    # UUID takes hyphens anywhere, upper case and prefixes, and then Redis would know another id.
    return key if str(key) == written else None


def _archived_as(status: TaskState) -> tuple[str, ...]:
    """The states that a task of this state may have here.

    A claim is not archived by itself, so an unfinished task may stand here in the other one.
    """
    unfinished = (TaskState.QUEUED.value, TaskState.RUNNING.value)
    return unfinished if status in unfinished else (status.value,)
