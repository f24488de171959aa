"""The duties, each a coroutine over connections of its own."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inferstack.config import Settings, require
from inferstack.lifecycle import retention
from inferstack.lifecycle.recovery import Recovery
from inferstack.queue.connection import connect
from inferstack.storage.database import Database
from inferstack.storage.dead_letters import DeadLetters
from inferstack.storage.history import History
from inferstack.storage.installation import owns
from inferstack.storage.objects import ObjectStore
from inferstack.storage.usage import Usage

log = logging.getLogger(__name__)

DIGEST_PERIOD = 3600.0
"""Seconds that one digest looks back."""


async def remove_old(settings: Settings) -> int:
    """Removes tasks older than the retention, with their bodies; returns how many."""
    days = settings.result_retention_days
    async with _database(settings) as database:
        objects = ObjectStore.from_settings(settings)
        removed = await retention.remove_old_tasks(History(database), objects, days)
    if removed:
        log.info("removed %d tasks older than %g days", removed, days)
    return removed


async def remove_orphans(settings: Settings) -> int:
    """Removes old bodies that no task refers to; returns how many."""
    async with _database(settings) as database:
        objects = ObjectStore.from_settings(settings)
        if not await owns(database, objects):
            return 0
        days = settings.result_retention_days
        removed = await retention.remove_orphans(History(database), objects, days)
    if removed:
        log.info("removed %d objects that no task refers to", removed)
    return removed


async def digest(settings: Settings) -> int:
    """Logs what failed for good in the last hour; returns how many tasks."""
    async with _database(settings) as database:
        found = await DeadLetters(database).digest(time.time() - DIGEST_PERIOD)
    total = sum(line.tasks for line in found)
    if total:
        worst = ", ".join(f"{line.tasks} of {line.deployment}: {line.error}" for line in found[:3])
        lines = [line._asdict() for line in found]
        log.warning("%d dead letters in the last hour (%s)", total, worst, extra={"digest": lines})
    return total


async def roll_up(settings: Settings) -> int:
    """Sums up who used what, hour by hour; returns how many sums changed."""
    async with _database(settings) as database:
        return await Usage(database).roll_up()


async def resend(settings: Settings) -> int:
    """Puts tasks back into the queue that Redis has lost; returns how many."""
    require(settings, "redis_url")
    redis = connect(str(settings.redis_url))
    try:
        async with _database(settings) as database:
            return await Recovery(redis, database, settings).run()
    finally:
        await redis.aclose()


@asynccontextmanager
async def _database(settings: Settings) -> AsyncIterator[Database]:
    database = Database.from_settings(settings)
    try:
        yield database
    finally:
        await database.close()
