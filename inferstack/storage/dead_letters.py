"""Failed tasks until they are redriven or purged, and the one place that says which were.

A redrive makes a new task, in three steps that a crash may part:

1. `reserve` writes the id of the new task down, before that task exists;
2. under the row lock of `held`, the task is put into the queue under that id;
3. `Held.settle` says so, and the dead letter leaves the list.

What is left of a redrive that died is found by the next one, since the id stays. It sees a dead
letter that is not settled, and the queue either has the task or never got it: the recorder, too,
settles a dead letter when it archives the task that repeats it, and must wait for the row lock.
So under the lock a task that is not settled cannot have come and gone.

A settled one whose new task is neither archived nor in the queue, and was not purged, lost it with
the data of Redis: `reopen` makes it a dead letter again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Text, cast, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from inferstack.errors import wrong_field
from inferstack.storage.database import Database, let_go_when_idle
from inferstack.storage.history import BODIES, as_uuid, columns
from inferstack.storage.rows import decode_row
from inferstack.storage.tables import tasks as table
from inferstack.storage.usage import remove
from inferstack.task import Task, deployment_name

# As the partial index says it, not with parameters, which prove nothing to the planner.
IS_DEAD = "state = 'failed' AND redriven_at IS NULL"
DEAD: ColumnElement[bool] = literal_column(IS_DEAD)

ERROR_TYPE = '^{"type":"([^"]*)"'
"""TaskError writes its type first. The operator ->> would fail on an escaped NUL."""


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which dead letters; a field left out does not restrict. Times are Unix seconds."""

    model: str | None = None
    error: str | None = None
    """Type of the error, such as `engine-error`."""
    since: float | None = None
    """Failed at this time or later."""
    before: float | None = None
    """Failed before this time."""


class DeadLetter(msgspec.Struct, frozen=True):
    """An archived task, and what became of it."""

    task: Task
    redriven_as: str | None = None
    """The task that repeats it; it may not exist before `settled`."""
    redriven_version: int | None = None
    """The model version of that task; None once that was purged."""
    settled: bool = False
    """Whether it is known that that task exists, or did."""

    @property
    def redriven_on(self) -> str | None:
        """The deployment of the task that repeats it."""
        version = self.redriven_version
        return None if version is None else deployment_name(self.task.spec.model, version)


class DeadLetterPage(NamedTuple):
    """A page of dead letters, the latest failure first, without their inputs."""

    letters: list[DeadLetter]
    next_cursor: str | None


class DigestLine(NamedTuple):
    """Dead letters of one deployment that failed alike."""

    tasks: int
    deployment: str
    error: str
    """Type of the error."""


class Copy(NamedTuple):
    """A task that repeats a dead letter."""

    task_id: str
    deployment: str
    redrive_of: str


class Purgeable(NamedTuple):
    """What there is of a dead letter."""

    task_id: str
    deployment: str
    keys: list[str]
    """In the object store."""


class DeadLetters:
    """The failed tasks in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database

    async def get(self, task_id: str) -> DeadLetter | None:
        """A task in whatever state, with its input as `msgspec.Raw`; None if it is not archived."""
        key = as_uuid(task_id)
        if key is None:
            return None
        async with self._database.transaction() as connection:
            row = (await connection.execute(_one(key))).one_or_none()
        return None if row is None else _letter(row)

    async def reserve(self, task_id: str, new_id: str, version: int) -> None:
        """Notes which task will repeat a dead letter, unless one is noted already."""
        async with self._database.transaction() as connection:
            await connection.execute(
                update(table)
                .where(table.c.id == UUID(task_id), DEAD, table.c.redriven_as.is_(None))
                .values(redriven_as=UUID(new_id), redriven_version=version)
            )

    @asynccontextmanager
    async def held(self, task_id: str) -> "AsyncIterator[Held | None]":
        """A task that nobody else redrives, removes or settles meanwhile; None if it is gone.

        What is changed through it is kept if the block ends without an error.
        """
        async with self._database.transaction() as connection:
            await let_go_when_idle(connection)
            found = await connection.execute(_one(UUID(task_id)).with_for_update())
            row = found.one_or_none()
            yield None if row is None else Held(connection, _letter(row))

    async def purgeable(
        self, tenant: str | None, wanted: LetterFilter, limit: int
    ) -> list[Purgeable]:
        """The dead letters that failed first.

        Args:
            tenant: whose; None for everybody's.
            wanted: which of them.
            limit: at most so many.

        Raises:
            InvalidRequestError: a time is none.
            ListsBusyError: too many wait for their lists already.
            StorageUnavailableError: PostgreSQL does not answer, or not in time.
        """
        fields = (table.c.id, table.c.model, table.c.model_version)
        query = (
            select(*fields, table.c.input_ref, table.c.result_ref)
            .where(*_conditions(tenant, wanted))
            .order_by(table.c.completed_at, table.c.id)
            .limit(limit)
        )
        async with self._database.list_transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Purgeable(str(key), deployment_name(model, version), [ref for ref in refs if ref])
            for key, model, version, *refs in rows
        ]

    async def delete(self, task_ids: Sequence[str]) -> set[str]:
        """Removes dead letters; returns which, for one redriven by now stays.

        What one of them repeats learns of it: it must not be taken for lost.
        """
        keys = [UUID(task_id) for task_id in task_ids]
        repeated = select(table.c.redrive_of).where(table.c.id.in_(keys), DEAD)
        old = table.alias("old")
        # In order, as `remove` does it: two purges must not wait for each other.
        locked = select(old.c.id).where(old.c.id.in_(repeated)).order_by(old.c.id).with_for_update()
        async with self._database.transaction() as connection:
            await connection.execute(
                update(table).where(table.c.id.in_(locked)).values(redriven_version=None)
            )
            return await remove(connection, task_ids, IS_DEAD)

    async def missing(self) -> list[Copy]:
        """The tasks that repeat dead letters, were not purged, and have no row: Redis has them.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        new = table.alias("new")
        query = select(table.c.id, table.c.model, table.c.redriven_as, table.c.redriven_version)
        query = query.where(
            literal_column("tasks.state = 'failed' AND tasks.redriven_at IS NOT NULL"),
            table.c.redriven_version.is_not(None),
            ~select(new.c.id).where(new.c.id == table.c.redriven_as).exists(),
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Copy(str(new_id), deployment_name(model, version), str(key))
            for key, model, new_id, version in rows
        ]

    async def reopen(self, task_ids: Sequence[str]) -> None:
        """Makes dead letters again of tasks whose repeating task is lost; its id stays reserved."""
        keys = [UUID(task_id) for task_id in task_ids]
        async with self._database.transaction() as connection:
            await connection.execute(
                update(table).where(table.c.id.in_(keys)).values(redriven_at=None)
            )

    async def digest(self, since: float) -> list[DigestLine]:
        """What failed since then, in Unix seconds; the most frequent first."""
        kind = func.substring(cast(table.c.error, Text), ERROR_TYPE)
        names = (table.c.model, table.c.model_version, kind)
        count = func.count()
        query = (
            select(count, *names)
            .where(*_conditions(None, LetterFilter(since=since)))
            .group_by(*names)
            .order_by(count.desc(), *names)
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [
            DigestLine(tasks, deployment_name(model, version), error or "unknown")
            for tasks, model, version, error in rows
        ]

    # Last, because its name hides the type in what follows.
    async def list(
        self, tenant: str | None, wanted: LetterFilter, limit: int, cursor: str | None
    ) -> DeadLetterPage:
        """A page of dead letters, the latest failure first.

        Args:
            tenant: whose; None for everybody's.
            wanted: which of them.
            limit: at most so many.
            cursor: `next_cursor` of the page before.

        Raises:
            InvalidRequestError: the cursor or a time is none.
            ListsBusyError: too many wait for theirs already.
            StorageUnavailableError: PostgreSQL does not answer, or not in time.
        """
        query = (
            select(*columns(without=BODIES))
            .where(*_conditions(tenant, wanted))
            .order_by(table.c.completed_at.desc(), table.c.id.desc())
            .limit(limit + 1)
        )
        if cursor is not None:
            query = query.where(func.row(table.c.completed_at, table.c.id) < _after(cursor))
        async with self._database.list_transaction() as connection:
            rows = (await connection.execute(query)).all()
        page = [_letter(row) for row in rows[:limit]]
        return DeadLetterPage(page, _cursor(rows[limit - 1]) if len(rows) > limit else None)


class Held:
    """A task under its row lock."""

    def __init__(self, connection: AsyncConnection, letter: DeadLetter) -> None:
        """Args: letter: the task as it is under the lock, with its input."""
        self.letter = letter
        self._connection = connection

    async def settle(self, new_id: str) -> None:
        """Notes that the task which repeats this one exists; it is no dead letter any more."""
        await self._set(redriven_as=UUID(new_id), redriven_at=func.now())

    async def reopen(self) -> None:
        """Takes `settle` back: the task that repeats this one is lost. Its id stays reserved."""
        await self._set(redriven_at=None)

    async def forget(self) -> None:
        """Takes the reservation back: the queue never got that task."""
        await self._set(redriven_as=None, redriven_version=None)

    async def _set(self, **values: Any) -> None:
        key = UUID(self.letter.task.spec.task_id)
        await self._connection.execute(update(table).where(table.c.id == key).values(**values))


def _one(key: UUID) -> Any:
    return select(*columns()).where(table.c.id == key)


def _letter(row: Any) -> DeadLetter:
    values = row._mapping
    new_id = values["redriven_as"]
    return DeadLetter(
        decode_row(row),
        None if new_id is None else str(new_id),
        values["redriven_version"],
        values["redriven_at"] is not None,
    )


def _conditions(tenant: str | None, wanted: LetterFilter) -> list[ColumnElement[bool]]:
    found = [DEAD]
    if tenant is not None:
        found.append(table.c.tenant == tenant)
    if wanted.model is not None:
        found.append(table.c.model == wanted.model)
    if wanted.error is not None:
        # As ERROR_TYPE says.
        start = b'{"type":' + msgspec.json.encode(wanted.error)
        found.append(cast(table.c.error, Text).startswith(start.decode(), autoescape=True))
    if wanted.since is not None:
        found.append(table.c.completed_at >= _time("since", wanted.since))
    if wanted.before is not None:
        found.append(table.c.completed_at < _time("before", wanted.before))
    return found


def _time(field: str, seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise wrong_field(field, "takes a recent time") from None


def _cursor(row: Any) -> str:
    """The place of a row: microseconds since the epoch and the id. It may be purged meanwhile."""
    failed = row._mapping["completed_at"]
    micros = round(failed.timestamp() * 1_000_000)
    return f"{micros}-{row._mapping['id']}"


def _after(cursor: str) -> Any:
    micros, _, task_id = cursor.partition("-")
    key = as_uuid(task_id)
    if key is None or not (micros.isascii() and micros.isdecimal()) or len(micros) > 16:
        raise wrong_field("cursor", "takes the next_cursor of a page")
    # From two whole numbers, as a float would round the microseconds.
    seconds, rest = divmod(int(micros), 1_000_000)
    failed = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return func.row(failed, key)
