"""Ends the life of old tasks: their bodies in the object store first, then their rows."""

from inferstack.storage.history import History
from inferstack.storage.objects import ObjectStore

PAGE = 500
"""Tasks removed in one transaction, so that it stays short."""


async def remove_old_tasks(history: History, objects: ObjectStore, days: float) -> int:
    """Removes every task that finished more than `days` ago; returns how many.

    Safe to repeat and to run in several processes: each step is idempotent, and an object
    goes before the row that names it.

    Raises:
        StorageUnavailableError: the rest stays for the next time.
    """
    removed = 0
    while old := await history.older_than(days, PAGE):
        await objects.delete([key for task in old for key in task.keys])
        await history.delete([task.task_id for task in old])
        removed += len(old)
    return removed
