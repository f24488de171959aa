"""What history says of tasks that have not finished, next to a Redis of another moment."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select, update

from inferstack.storage.database import Database
from inferstack.storage.tables import tasks as table
from inferstack.task import TERMINAL, TaskState, deployment_name

PAGE = 1000
"""Tasks of one query."""

TERMINAL_VALUES = [state.value for state in TERMINAL]
UNFINISHED = table.c.state.in_([TaskState.QUEUED.value, TaskState.RUNNING.value])


class UnfinishedTask(NamedTuple):
    """A task that has not finished as far as history knows."""

    task_id: str
    deployment: str
    keys: list[str]
    """Of its bodies in the object store."""


class Unfinished:
    """Reads and mends the unfinished part of history."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database

    async def finished(self, task_ids: Sequence[str]) -> list[str]:
        """Which of these tasks have finished in history."""
        found: list[str] = []
        async with self._database.transaction() as connection:
            for start in range(0, len(task_ids), PAGE):
                ids = [UUID(task_id) for task_id in task_ids[start : start + PAGE]]
                query = select(table.c.id).where(
                    table.c.id.in_(ids), table.c.state.in_(TERMINAL_VALUES)
                )
                found += [str(key) for key in (await connection.execute(query)).scalars()]
        return found

    async def all(self) -> list[UnfinishedTask]:
        """Every task that has not finished in history."""
        query = select(
            table.c.id,
            table.c.model,
            table.c.model_version,
            table.c.input_ref,
            table.c.result_ref,
        ).where(UNFINISHED, table.c.state != "completed")  # as the partial index says it
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        return [
            UnfinishedTask(str(key), deployment_name(model, version), [ref for ref in refs if ref])
            for key, model, version, *refs in rows
        ]

    async def rewind(self) -> None:
        """Has the next change of each unfinished task archived, whatever version it is."""
        async with self._database.transaction() as connection:
            await connection.execute(update(table).where(UNFINISHED).values(state_version=0))
