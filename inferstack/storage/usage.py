"""Who used what: sums of finished tasks for each hour, tenant and model."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from inferstack.storage.database import Database
from inferstack.storage.tables import usage as table

AGAIN = timedelta(hours=2)
"""How far back it is looked for what was written: that long a write may take to be seen."""

Period = Literal["hour", "day", "month"]

# The hours to sum again. A task may be archived long after it ended, and belongs to its hour.
CHANGED = text(
    """
    SELECT DISTINCT date_trunc('hour', completed_at, 'UTC') AS hour FROM tasks
    WHERE recorded_at >= :since AND state IN ('completed', 'failed', 'cancelled', 'expired')
    ORDER BY hour
    """
)

# A batch's time is shared by the tasks in it. Sums only grow: a purge takes tasks away that were
# served all the same.
ROLL_UP = text(
    """
    INSERT INTO usage (
        hour, tenant, model, model_version, completed, failed, cancelled, expired,
        compute_seconds, queue_seconds, cost
    )
    SELECT date_trunc('hour', completed_at, 'UTC'), tenant, model, model_version,
        count(*) FILTER (WHERE state = 'completed'),
        count(*) FILTER (WHERE state = 'failed'),
        count(*) FILTER (WHERE state = 'cancelled'),
        count(*) FILTER (WHERE state = 'expired'),
        coalesce(sum(compute_ms / nullif(batch_size, 0)), 0) / 1000,
        coalesce(sum(queue_ms), 0) / 1000,
        coalesce(sum(cost), 0)
    FROM tasks
    WHERE completed_at >= :first AND date_trunc('hour', completed_at, 'UTC') = ANY(:hours)
        AND state IN ('completed', 'failed', 'cancelled', 'expired')
    GROUP BY 1, 2, 3, 4
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


async def _since(connection: AsyncConnection) -> datetime:
    # A clock that was ahead for a while must not hide what comes until then.
    query = select(func.least(func.max(table.c.summed_at), func.now()), func.count())
    latest, sums = (await connection.execute(query)).one()
    return latest - AGAIN if sums else BEGINNING


def _line(row: Row[Any]) -> UsageLine:
    """PostgreSQL sums whole numbers as decimals."""
    values: list[Any] = [*row[:4], *map(int, row[4:8]), *map(float, row[8:])]
    return UsageLine(*values)
