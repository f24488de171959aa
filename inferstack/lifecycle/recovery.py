"""Finds tasks that history knows as unfinished and Redis does not know, and submits them again.

It happens when Redis lost its disk, when a failover lost what was not replicated, or when only
PostgreSQL was restored from a backup. Redis forgets a task only after PostgreSQL has its end, so
one that is unfinished there and unknown here can come to an end in no other way.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from inferstack.config import Settings
from inferstack.errors import InferstackError
from inferstack.queue.codec import encode
from inferstack.queue.connection import Redis, clock_ms
from inferstack.queue.settle import known
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Enqueued, Submit
from inferstack.storage.database import HOLD, Database
from inferstack.storage.unfinished import Unfinished, UnfinishedTask
from inferstack.task import Task

log = logging.getLogger(__name__)

PAGE = 500
"""Tasks that are looked up at once."""
AGE = 60.0
"""Seconds since its creation before a task is looked for."""
LONGEST = 50.0
"""Seconds that a sweep goes on: the next one is due after a minute, and does the rest."""
SHORTEST = 0.001
"""Seconds that are left to a task whose deadline has passed: it expires as any other does."""


class Recovery:
    """One sweep over what is unfinished."""

    def __init__(self, redis: "Redis", database: Database, settings: Settings) -> None:
        """Args: redis: of the queue. database: of the history."""
        self._redis = redis
        self._unfinished = Unfinished(database)
        self._settings = settings

    async def run(self) -> int:
        """Submits again what is lost, under its own id; returns how many tasks.

        Raises:
            QueueUnavailableError, StorageUnavailableError: the rest waits for the next sweep.
        """
        until = time.monotonic() + LONGEST
        sent, after, refusals = 0, None, _Refusals()
        while page := await self._unfinished.page(await self._now() - AGE, after, PAGE):
            for lost in await self._lost(page):
                if not refusals.cover(lost) and time.monotonic() < until:
                    sent += await self._submit(lost, refusals)
            if time.monotonic() > until:
                log.warning("a sweep for lost tasks takes long: the next one goes on")
                break
            after = page[-1].task_id
        refusals.tell()
        if sent:
            log.warning("%d tasks were lost from Redis and are queued again", sent)
        return sent

    async def _now(self) -> float:
        """By the clock that said when each task was made."""
        return await clock_ms(self._redis) / 1000

    async def _lost(self, page: Sequence[UnfinishedTask]) -> list[UnfinishedTask]:
        found: list[UnfinishedTask] = []
        for name in dict.fromkeys(item.deployment for item in page):
            mine = [item for item in page if item.deployment == name]
            there = await known(self._redis, name, [item.task_id for item in mine])
            found += [item for item in mine if item.task_id not in there]
        return found

    async def _submit(self, lost: UnfinishedTask, refusals: "_Refusals") -> int:
        """Under the lock of its row: of two sweeps one does it, and its end is not yet archived.

        Its version goes on where history stands, which takes nothing older.
        """
        queue = TaskQueue(self._redis, lost.deployment, self._settings)
        async with self._unfinished.held(lost.task_id) as task:
            until = time.monotonic() + HOLD / 2
            if task is None or await known(self._redis, lost.deployment, [lost.task_id]):
                return 0
            if time.monotonic() > until:
                # PostgreSQL may soon let somebody else have the row.
                return 0
            try:
                submit = _submit_of(task, await self._now())
                # Never that of a new task: attempts of before the loss must stay refused.
                version = max(2, task.version + 1)
                (answer,) = await queue.enqueue([submit], version=version)
            except InferstackError as error:
                refusals.add(_lane(lost), str(error))
                return 0
        if answer.status is Enqueued.TENANT_FULL:
            refusals.add(_tenant(lost), answer.status)
        elif answer.status not in (Enqueued.OK, Enqueued.DUPLICATE):
            refusals.add(_lane(lost), answer.status)
        return int(answer.status is Enqueued.OK)


_Group = tuple[str, str]
"""A deployment, and a lane or tenant of it."""


def _lane(lost: UnfinishedTask) -> _Group:
    # Each has a limit of its own.
    return lost.deployment, f"priority {lost.priority}"


def _tenant(lost: UnfinishedTask) -> _Group:
    return lost.deployment, f"tenant {lost.tenant}"


class _Refusals:
    """What a sweep tries no further: after one refusal the next would be the same."""

    def __init__(self) -> None:
        self._reasons: dict[_Group, str] = {}
        self._tasks: Counter[_Group] = Counter()

    def add(self, group: _Group, reason: str) -> None:
        """One task was refused."""
        self._reasons[group] = reason
        self._tasks[group] += 1

    def cover(self, lost: UnfinishedTask) -> bool:
        """Whether a task would be refused as others were; counts it then."""
        for group in (_lane(lost), _tenant(lost)):
            if group in self._reasons:
                self._tasks[group] += 1
                return True
        return False

    def tell(self) -> None:
        """One line for each reason."""
        for (deployment, which), reason in self._reasons.items():
            count = self._tasks[deployment, which]
            log.warning("%d of %s, %s, stay lost for now: %s", count, deployment, which, reason)


def _submit_of(task: Task, now: float) -> Submit:
    spec = task.spec
    left = spec.timeout
    if left is not None:
        left = max(SHORTEST, left - (now - task.created_at))
    # Its key may have been used again since Redis forgot it.
    return Submit(msgspec.structs.replace(spec, timeout=left, idempotency_key=None), encode(spec))
