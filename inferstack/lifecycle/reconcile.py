"""Makes a restored Redis and a restored history agree.

A backup asks Redis first, PostgreSQL then, and the object store last. So nothing is missing: what
Redis had forgotten by then is in history, and what either refers to is in the object store. But
history is a little younger than Redis, which three rules mend.
"""

from typing import NamedTuple

from inferstack.lifecycle import payloads
from inferstack.queue.connection import Redis
from inferstack.queue.registry import Registry
from inferstack.queue.settle import known, settle, unfinished
from inferstack.storage.database import Database
from inferstack.storage.history import History
from inferstack.storage.objects import ObjectStore
from inferstack.storage.unfinished import PAGE, Unfinished, UnfinishedTask


class Reconciled(NamedTuple):
    """What became of the tasks that had not finished."""

    unfinished: int
    """They go on."""
    removed: int
    """They stood in history, and Redis did not have them."""


async def reconcile(redis: "Redis", database: Database, store: ObjectStore) -> Reconciled:
    """Run once, after everything is copied and before anything is served; safe to repeat.

    Raises:
        QueueUnavailableError, StorageUnavailableError: run it again.
    """
    history = Unfinished(database)
    going_on = 0
    for deployment in await Registry(redis).all():
        waiting = await unfinished(redis, deployment.name)
        # A result that history holds stands: it may have been read. The task must not run again.
        over = await history.finished(sorted(waiting))
        await settle(redis, deployment.name, over)
        going_on += len(waiting) - len(over)
    # What Redis does not hold was accepted after it was asked. Nobody would ever run it.
    unknown = await _unknown(redis, await history.all())
    await _remove(unknown, database, store)
    # Redis counts on from its own version, which history may have been ahead of.
    await history.rewind()
    return Reconciled(going_on, len(unknown))


async def _unknown(redis: "Redis", tasks: list[UnfinishedTask]) -> list[UnfinishedTask]:
    by_deployment: dict[str, list[str]] = {}
    for task in tasks:
        by_deployment.setdefault(task.deployment, []).append(task.task_id)
    there: set[str] = set()
    for name, task_ids in by_deployment.items():
        there |= await known(redis, name, task_ids)
    return [task for task in tasks if task.task_id not in there]


async def _remove(tasks: list[UnfinishedTask], database: Database, store: ObjectStore) -> None:
    history = History(database)
    for start in range(0, len(tasks), PAGE):
        page = tasks[start : start + PAGE]
        # Bodies first, as retention does it: a row that is left still names them.
        await payloads.discard(store, [key for task in page for key in task.keys])
        await history.delete([task.task_id for task in page])
