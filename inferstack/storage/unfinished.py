"""Tasks that history does not know the end of."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, literal_column, not_, select, update

from inferstack.storage.database import Database, let_go_when_idle
from inferstack.storage.history import columns
from inferstack.storage.rows import decode_row
from inferstack.storage.tables import tasks as table
from inferstack.task import Task, deployment_name

# As the partial index says it, not with parameters, which prove nothing to the planner.
OPEN: ColumnElement[bool] = literal_column("state IN ('queued', 'running')")

PAGE = 1000
"""Tasks that one query asks for."""


class UnfinishedTask(NamedTuple):
    """Where to look for one, and who waits for it in which lane."""

    task_id: str
    deployment: str
    tenant: str
    priority: str


class Unfinished:
    """The unfinished tasks in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database

    async def page(self, before: float, after: str | None, limit: int) -> list[UnfinishedTask]:
        """Some of them, by id.

        Args:
            before: created before this time, in Unix seconds.
            after: the last id of the page before.
            limit: at most so many.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        query = (
            select(
                table.c.id,
                table.c.model,
                table.c.model_version,
                table.c.tenant,
                table.c.priority,
            )
            .where(OPEN, table.c.created_at < datetime.fromtimestamp(before, UTC))
            .order_by(table.c.id)
            .limit(limit)
        )
        if after is not None:
            query = query.where(table.c.id > UUID(after))
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [
            UnfinishedTask(str(key), deployment_name(model, version), tenant, priority)
            for key, model, version, tenant, priority in rows
        ]

    async def ended(self, task_ids: Sequence[str]) -> list[str]:
        """Which of these tasks have ended as far as history knows.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        found: list[str] = []
        async with self._database.transaction() as connection:
            for start in range(0, len(task_ids), PAGE):
                ids = [UUID(task_id) for task_id in task_ids[start : start + PAGE]]
                query = select(table.c.id).where(table.c.id.in_(ids), not_(OPEN))
                found += [str(key) for key in (await connection.execute(query)).scalars()]
        return found

    async def rewind(self) -> None:
        """Has history take the next change of each of them, whatever its version is.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        async with self._database.transaction() as connection:
            await connection.execute(update(table).where(OPEN).values(state_version=0))

    @asynccontextmanager
    async def held(self, task_id: str) -> AsyncIterator[Task | None]:
        """A task that history learns nothing new of meanwhile; None if it has ended.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer, or lost patience: see
                `let_go_when_idle`.
        """
        query = select(*columns()).where(table.c.id == UUID(task_id), OPEN).with_for_update()
        async with self._database.transaction() as connection:
            await let_go_when_idle(connection)
            row = (await connection.execute(query)).one_or_none()
            yield None if row is None else decode_row(row)
