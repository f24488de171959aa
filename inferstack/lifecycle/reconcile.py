"""Makes a restored Redis and a restored history agree.

A backup asks Redis first, PostgreSQL then, and the object store last. So nothing is missing: what
Redis had forgotten by then is in history, and what either refers to is in the object store. But
history is a little younger than Redis, which this mends. What history knows as unfinished and Redis
does not know was accepted in between: `recovery.py` submits it again, as whatever Redis loses.
What was redriven in between is a dead letter again, unless its new task was archived by then.
"""

import logging

from inferstack.queue.connection import Redis
from inferstack.queue.registry import Registry
from inferstack.queue.settle import known, settle, unfinished
from inferstack.storage.database import Database
from inferstack.storage.dead_letters import DeadLetters
from inferstack.storage.models import Models
from inferstack.storage.unfinished import Unfinished

log = logging.getLogger(__name__)


async def reconcile(redis: "Redis", database: Database) -> int:
    """Run once, after everything is copied and before anything is served; safe to repeat.

    Returns:
        How many tasks have not finished and go on.

    Raises:
        QueueUnavailableError, StorageUnavailableError: run it again.
    """
    history = Unfinished(database)
    going_on = 0
    # Also those that are registered no more: their tasks run once they are deployed again.
    deployments = [*await Registry(redis).all(), *await Models(database).all()]
    for name in {deployment.name for deployment in deployments}:
        waiting = await unfinished(redis, name)
        # A result that history holds stands: it may have been read. The task must not run again.
        over = await history.ended(sorted(waiting))
        await settle(redis, name, over)
        going_on += len(waiting) - len(over)
    # Redis counts on from its own version, which history may have been ahead of.
    await history.rewind()
    await _reopen(redis, DeadLetters(database))
    return going_on


async def _reopen(redis: "Redis", letters: DeadLetters) -> None:
    """Gives back the dead letters whose new tasks were made after Redis was asked."""
    missing = await letters.missing()
    lost: list[str] = []
    for name in {copy.deployment for copy in missing}:
        mine = [copy for copy in missing if copy.deployment == name]
        there = await known(redis, name, [copy.task_id for copy in mine])
        lost += [copy.redrive_of for copy in mine if copy.task_id not in there]
    if lost:
        await letters.reopen(lost)
        log.warning("%d tasks are dead letters again: the backup misses their redrives", len(lost))
