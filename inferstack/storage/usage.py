"""Who used what: sums of finished tasks for each hour, tenant and model.

An hour is summed anew whenever a task of it was archived. Tasks are removed meanwhile, by their
owners and by the retention. What each had of an hour is added up in `usage_removed`, in the
transaction that removes it, and belongs to the hour's sums as if it were still there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from inferstack.storage.database import Database
from inferstack.storage.tables import usage as table

AGAIN = timedelta(hours=2)
"""How far back it is looked for what was written: that long a write may take to be seen."""

Period = Literal["hour", "day", "month"]

COLUMNS = """hour, tenant, model, model_version,
        completed, failed, cancelled, expired, compute_seconds, queue_seconds, cost"""

# A batch's time is shared by the tasks in it. A column of short floats would be summed in one, too.
SUMS = """date_trunc('hour', completed_at, 'UTC') AS hour, tenant, model, model_version,
        count(*) FILTER (WHERE state = 'completed') AS completed,
        count(*) FILTER (WHERE state = 'failed') AS failed,
        count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
        count(*) FILTER (WHERE state = 'expired') AS expired,
        coalesce(sum(compute_ms / nullif(batch_size, 0)), 0) / 1000 AS compute_seconds,
        coalesce(sum(CAST(queue_ms AS float8)), 0) / 1000 AS queue_seconds,
        coalesce(sum(cost), 0) AS cost"""

ENDED = "state IN ('completed', 'failed', 'cancelled', 'expired')"

# The hours to sum again. A task may be archived long after it ended, and belongs to its hour.
CHANGED = text(
    f"""
    SELECT date_trunc('hour', completed_at, 'UTC') AS hour FROM tasks
    WHERE recorded_at >= :since AND {ENDED}
    UNION
    SELECT hour FROM usage_removed WHERE recorded_at >= :since
    ORDER BY hour
    """
)

# What is there and what was removed are of one moment, in which each task is in one of the two.
# Sums only grow: two of these may run at once, and the one that looked first write last.
ROLL_UP = text(
    f"""
    WITH parts AS (
        SELECT {SUMS} FROM tasks
        WHERE completed_at >= :first AND date_trunc('hour', completed_at, 'UTC') = ANY(:hours)
            AND {ENDED}
        GROUP BY 1, 2, 3, 4
        UNION ALL
        SELECT {COLUMNS} FROM usage_removed WHERE hour = ANY(:hours)
    )
    INSERT INTO usage ({COLUMNS})
    SELECT hour, tenant, model, model_version, sum(completed), sum(failed), sum(cancelled),
        sum(expired), sum(compute_seconds), sum(queue_seconds), sum(cost)
    FROM parts
    GROUP BY 1, 2, 3, 4
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (hour, tenant, model, model_version) DO UPDATE SET
        completed = greatest(usage.completed, excluded.completed),
        failed = greatest(usage.failed, excluded.failed),
        cancelled = greatest(usage.cancelled, excluded.cancelled),
        expired = greatest(usage.expired, excluded.expired),
        compute_seconds = greatest(usage.compute_seconds, excluded.compute_seconds),
        queue_seconds = greatest(usage.queue_seconds, excluded.queue_seconds),
        cost = greatest(usage.cost, excluded.cost),
        summed_at = now()
    """
)

# What is removed before it was summed is looked for as if it were still there, by the time at
# which it was recorded. In order, so that two of these do not wait for each other.
REMOVE = f"""
    WITH gone AS (
        DELETE FROM tasks WHERE id = ANY(CAST(:keys AS uuid[])) AND {{which}}
        RETURNING id, tenant, model, model_version, state, completed_at, recorded_at,
            compute_ms, batch_size, queue_ms, cost
    ), kept AS (
        INSERT INTO usage_removed ({COLUMNS}, recorded_at)
        SELECT {SUMS}, max(recorded_at) FROM gone
        WHERE {ENDED} AND completed_at IS NOT NULL
        GROUP BY 1, 2, 3, 4
        ORDER BY 1, 2, 3, 4
        ON CONFLICT (hour, tenant, model, model_version) DO UPDATE SET
            completed = usage_removed.completed + excluded.completed,
            failed = usage_removed.failed + excluded.failed,
            cancelled = usage_removed.cancelled + excluded.cancelled,
            expired = usage_removed.expired + excluded.expired,
            compute_seconds = usage_removed.compute_seconds + excluded.compute_seconds,
            queue_seconds = usage_removed.queue_seconds + excluded.queue_seconds,
            cost = usage_removed.cost + excluded.cost,
            recorded_at = greatest(usage_removed.recorded_at, excluded.recorded_at)
    )
    SELECT id FROM gone
    """

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class UsageLine:
    """What one tenant had of one model version in one period."""

    start: datetime
    tenant: str
    model: str
    model_version: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    compute_seconds: float
    """Of the device, each batch's time shared by its tasks."""
    queue_seconds: float
    """That tasks waited for a replica."""
    cost: float
    """In the model's unit, such as tokens."""


class Usage:
    """The sums in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database

    async def roll_up(self) -> int:
        """Brings the sums up to date; returns how many were written. Safe to repeat.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        async with self._database.transaction() as connection:
            changed = await connection.execute(CHANGED, {"since": await _since(connection)})
            hours = list(changed.scalars())
            if not hours:
                return 0
            done = await connection.execute(ROLL_UP, {"first": hours[0], "hours": hours})
            return int(done.rowcount)

    async def read(
        self, tenant: str | None, since: datetime, until: datetime, period: Period
    ) -> list[UsageLine]:
        """Sums of the hours that begin from `since` on and before `until`, oldest first.

        Args:
            tenant: whose; None for everybody's.
            since: the first hour.
            until: ends before it.
            period: what one line sums up.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        start = func.date_trunc(period, table.c.hour, "UTC").label("start")
        names = (start, table.c.tenant, table.c.model, table.c.model_version)
        sums = [func.sum(table.c[field.name]) for field in fields(UsageLine)[len(names) :]]
        query = (
            select(*names, *sums)
            .where(table.c.hour >= since, table.c.hour < until)
            .group_by(*names)
            .order_by(*names)
        )
        if tenant is not None:
            query = query.where(table.c.tenant == tenant)
        async with self._database.transaction() as connection:
            return [_line(row) for row in await connection.execute(query)]


async def remove(
    connection: AsyncConnection, task_ids: Sequence[str], which: str = "true"
) -> set[str]:
    """Removes tasks from history, but not from the sums: they were served all the same.

    Args:
        connection: of a transaction, with which both happen or neither.
        task_ids: those that are gone already do no harm.
        which: a condition in SQL on what is removed.

    Returns:
        The ids of those that it removed.
    """
    keys = sorted(UUID(task_id) for task_id in task_ids)
    rows = await connection.execute(text(REMOVE.format(which=which)), {"keys": keys})
    return {str(key) for key in rows.scalars()}


async def _since(connection: AsyncConnection) -> datetime:
    # A clock that was ahead for a while must not hide what comes until then.
    query = select(func.least(func.max(table.c.summed_at), func.now()), func.count())
    latest, sums = (await connection.execute(query)).one()
    return latest - AGAIN if sums else BEGINNING


def _line(row: Row[Any]) -> UsageLine:
    """PostgreSQL sums whole numbers as decimals."""
    values: list[Any] = [*row[:4], *map(int, row[4:8]), *map(float, row[8:])]
    return UsageLine(*values)
