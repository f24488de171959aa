"""Dead letters as their owners see them: failed tasks, until they are redriven or purged."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

import msgspec

from inferstack.config import Settings
from inferstack.errors import (
    InferstackError,
    NotADeadLetterError,
    NotArchivedYetError,
    NotFoundError,
    TaskNotFoundError,
)
from inferstack.lifecycle.redrive import Changes, Redriver
from inferstack.lifecycle.tasks import Tasks
from inferstack.lifecycle.types import BatchAnswer, Caller, Receipt
from inferstack.queue.connection import Redis
from inferstack.queue.settle import purge
from inferstack.storage import dead_letters as storage
from inferstack.storage.database import Database
from inferstack.storage.dead_letters import DeadLetter, DeadLetterPage, LetterFilter, Purgeable
from inferstack.storage.objects import ObjectStore
from inferstack.task import TaskState
from inferstack.telemetry.metrics import DEAD_LETTERS_PURGED

SHOWN = 1024 * 1024
"""Bytes of an input that are shown; a larger one is only measured."""

SIDE_BY_SIDE = 4
"""Redrives of one process at once: each holds a connection to PostgreSQL while it lasts."""

OF_A_TENANT = 2
"""Of those, how many may be of one tenant: a thousand of one must not hold up others' few."""

STEP = 200
"""Dead letters that one step of a purge removes, so that each of its transactions is short."""

PATIENCE = 20.0
"""Seconds after which a purge begins no further step."""

UNCHANGED = Changes()


class Inspected(NamedTuple):
    """A dead letter with its input."""

    letter: DeadLetter
    input: msgspec.Raw | None
    """None if it is larger than SHOWN, or not kept."""
    input_bytes: int | None
    """None if it was not kept."""


class Redriven(NamedTuple):
    """What became of one dead letter of many."""

    task_id: str
    answer: BatchAnswer


class Purged(NamedTuple):
    """What a purge removed."""

    tasks: int
    more: bool
    """Whether the limit or the time ended it, and there may be more to purge."""


class DeadLetters:
    """One object a process; the routes of dead letters go through it."""

    def __init__(
        self,
        redis: "Redis",
        tasks: Tasks,
        store: ObjectStore,
        database: Database,
        settings: Settings,
    ) -> None:
        """Args: tasks: what else happens to tasks."""
        self._redis = redis
        self._tasks = tasks
        self._store = store
        self._letters = storage.DeadLetters(database)
        self._redriver = Redriver(redis, tasks, store, self._letters, settings)
        self._slots = asyncio.Semaphore(SIDE_BY_SIDE)
        # Gone with the last redrive of the tenant.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def get(self, caller: Caller, task_id: str) -> Inspected:
        """One dead letter with its input.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
            NotADeadLetterError: it has not failed, or was redriven.
            NotArchivedYetError: it failed a moment ago.
        """
        letter = await self._dead(caller, task_id)
        spec = letter.task.spec
        if spec.data_ref is None:
            size = None if spec.data is None else len(bytes(spec.data))
            return Inspected(letter, spec.data, size)
        try:
            size = await self._store.size(spec.data_ref)
            body = await self._store.get(spec.data_ref) if size <= SHOWN else None
        except NotFoundError:
            return Inspected(letter, None, None)
        return Inspected(letter, None if body is None else msgspec.Raw(body), size)

    async def redrive(self, caller: Caller, task_id: str, changes: Changes = UNCHANGED) -> Receipt:
        """The receipt of the new task; however often it is called there is only one.

        Raises:
            TaskNotFoundError, NotADeadLetterError, NotArchivedYetError: as in `get`, but one
                that was redriven gives its new task again.
            ConflictError: its input is gone.
            InvalidInputError, ModelNotFoundError, TenantQueueFullError, QueueFullError: as for
                a submit; the dead letter stays.
        """
        turns = self._turns.get(caller.tenant) or asyncio.Semaphore(OF_A_TENANT)
        self._turns[caller.tenant] = turns
        async with turns, self._slots:
            return await self._redriver.redrive(await self._failed(caller, task_id), changes)

    async def redrive_all(self, caller: Caller, task_ids: Sequence[str]) -> list[Redriven]:
        """Redrives each; one that is refused does not sink the others."""
        different = list(dict.fromkeys(task_ids))
        return list(await asyncio.gather(*(self._try(caller, task_id) for task_id in different)))

    async def _try(self, caller: Caller, task_id: str) -> Redriven:
        try:
            return Redriven(task_id, await self.redrive(caller, task_id))
        except InferstackError as error:
            return Redriven(task_id, error)

    async def redrive_where(
        self, caller: Caller, wanted: LetterFilter, limit: int
    ) -> list[Redriven]:
        """Redrives those that failed first, at most `limit`."""
        found = await self._letters.purgeable(caller.scope, wanted, limit)
        return await self.redrive_all(caller, [letter.task_id for letter in found])

    async def purge(self, caller: Caller, task_id: str) -> Purged:
        """Removes one dead letter and its bodies; errors as in `get`."""
        spec = (await self._dead(caller, task_id)).task.spec
        keys = [spec.data_ref] if spec.data_ref else []
        return Purged(await self._remove([Purgeable(task_id, spec.deployment, keys)]), False)

    async def purge_where(self, caller: Caller, wanted: LetterFilter, limit: int) -> Purged:
        """Removes those that failed first, in bounded steps; at most `limit`."""
        until = time.monotonic() + PATIENCE
        count = 0
        while count < limit and time.monotonic() < until:
            step = min(STEP, limit - count)
            found = await self._letters.purgeable(caller.scope, wanted, step)
            count += await self._remove(found)
            if len(found) < step:
                return Purged(count, False)
        return Purged(count, True)

    async def _remove(self, letters: Sequence[Purgeable]) -> int:
        """Bodies go first and the row last: a crash in between leaves nothing that nobody knows.

        One that is redriven meanwhile stays, without the input that its new task has, too.
        """
        await self._store.delete([key for letter in letters for key in letter.keys])
        deployments = {letter.task_id: letter.deployment for letter in letters}
        for name in set(deployments.values()):
            await purge(self._redis, name, [i for i, d in deployments.items() if d == name])
        gone = await self._letters.delete(list(deployments))
        for task_id in gone:
            model, _, version = deployments[task_id].rpartition(":")
            DEAD_LETTERS_PURGED.labels(model, version).inc()
        return len(gone)

    async def _dead(self, caller: Caller, task_id: str) -> DeadLetter:
        """A dead letter of this caller that has not been redriven."""
        letter = await self._failed(caller, task_id)
        if letter.settled:
            raise NotADeadLetterError(
                f"task {task_id} was redriven as {letter.redriven_as}", task_id=task_id
            )
        return letter

    async def _failed(self, caller: Caller, task_id: str) -> DeadLetter:
        """An archived task of this caller that failed."""
        letter = await self._letters.get(task_id)
        if letter is None or not letter.task.state.terminal:
            task = await self._tasks.get(caller, task_id)
            if task.state is TaskState.FAILED:
                raise NotArchivedYetError(task_id=task_id)
        else:
            task = letter.task
            if not caller.may_see(task):
                raise TaskNotFoundError(f"there is no task {task_id}", task_id=task_id)
            if task.state is TaskState.FAILED:
                return letter
        raise NotADeadLetterError(f"task {task_id} is {task.state}, not failed", task_id=task_id)

    # Last, because its name hides the type in what follows.
    async def list(
        self, caller: Caller, wanted: LetterFilter, limit: int, cursor: str | None
    ) -> DeadLetterPage:
        """A page of the caller's dead letters, the latest failure first; an admin sees all."""
        return await self._letters.list(caller.scope, wanted, limit, cursor)
