"""Ends the life of old tasks: their bodies in the object store first, then their rows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from inferstack.lifecycle.payloads import FOLDER, task_of
from inferstack.storage.history import History, as_uuid, first_id
from inferstack.storage.objects import ObjectStore

PAGE = 500
"""Tasks removed in one transaction, so that it stays short."""
ORPHAN_MARGIN_DAYS = 7.0
"""Past the retention. The row of a task waits in Redis while PostgreSQL is away, never so long."""


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


async def remove_orphans(history: History, objects: ObjectStore, days: float) -> int:
    """Removes bodies that no task refers to; returns how many.

    A submit that Redis never answered leaves its input, a replica that dies while it completes a
    batch leaves results. Whether a task needs them cannot be known at that moment; long past the
    retention, a task without a row is no task. What was written since is younger than its task: a
    restore of an old backup wrote it, whose rows may still be on their way.

    Args:
        history: all tasks.
        objects: where the bodies lie.
        days: how long tasks are kept after they finished.

    Raises:
        StorageUnavailableError: the rest stays for the next time.
    """
    before = datetime.now(UTC) - timedelta(days=days + ORPHAN_MARGIN_DAYS)
    end = f"{FOLDER}/{first_id(before.timestamp())}"
    removed = 0
    page: list[str] = []
    async for key in objects.old_keys(FOLDER, end, before):
        page.append(key)
        if len(page) == PAGE:
            removed += await _remove_orphans_of(page, history, objects)
            page = []
    return removed + await _remove_orphans_of(page, history, objects)


async def _remove_orphans_of(keys: Sequence[str], history: History, objects: ObjectStore) -> int:
    owners = {key: task_id for key in keys if as_uuid(task_id := task_of(key))}
    unknown = await history.unknown(set(owners.values()))
    orphans = [key for key, task_id in owners.items() if task_id in unknown]
    await objects.delete(orphans)
    return len(orphans)
