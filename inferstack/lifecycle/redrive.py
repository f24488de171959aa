"""Submits a dead letter again as a new task, once, whatever dies in between."""

import asyncio
import logging
import time
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inferstack.config import Settings
from inferstack.errors import (
    ConflictError,
    InferstackError,
    NotADeadLetterError,
    NotFoundError,
    StorageUnavailableError,
)
from inferstack.lifecycle import payloads
from inferstack.lifecycle.directory import Target
from inferstack.lifecycle.refusals import raise_refusal
from inferstack.lifecycle.tasks import Tasks
from inferstack.lifecycle.types import MAX_TIMEOUT, Receipt
from inferstack.queue.codec import encode
from inferstack.queue.connection import Redis
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Enqueued, Submit
from inferstack.storage.database import HOLD
from inferstack.storage.dead_letters import DeadLetter, DeadLetters, Held
from inferstack.storage.objects import ObjectStore
from inferstack.task import Priority, Task, TaskSpec, TaskState, new_task_id
from inferstack.telemetry.metrics import DEAD_LETTERS_REDRIVEN

log = logging.getLogger(__name__)

TRIES = 3
"""Reservations of others, for another version, that one redrive replaces."""

KEY = "\x1fredrive\x1f"
"""Starts idempotency keys that no caller can send: theirs are printable."""


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be other than in the dead letter; the body of a redrive."""

    model_version: Annotated[int, Meta(ge=1)] | None = None
    priority: Priority | None = None
    timeout: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT)] | UnsetType | None = UNSET
    """Seconds; null never expires."""


class Redriver:
    """Makes new tasks of dead letters; `storage/dead_letters.py` says how that stays single."""

    def __init__(
        self,
        redis: "Redis",
        tasks: Tasks,
        store: ObjectStore,
        letters: DeadLetters,
        settings: Settings,
    ) -> None:
        """Args: tasks: for the deployments that this process knows."""
        self._redis = redis
        self._directory = tasks.directory
        self._store = store
        self._letters = letters
        self._settings = settings

    async def redrive(self, letter: DeadLetter, changes: Changes) -> Receipt:
        """The receipt of the task that repeats a dead letter, also if there is one already.

        If Redis has lost that task, it is submitted again.

        Raises:
            NotADeadLetterError: it has been purged, or redriven and the new task was purged.
            ConflictError: its input is gone, or others redrive it to another version now.
            InvalidInputError, ModelNotFoundError, TenantQueueFullError, QueueFullError: as for
                a submit; the dead letter stays.
        """
        if letter.settled and (there := await self._existing(letter)) is not None:
            return there
        spec = letter.task.spec
        version = changes.model_version or spec.model_version
        target = self._directory.resolve(spec.model, version)
        planned = await self._plan(letter, target, changes)
        for _ in range(TRIES):
            new_id = new_task_id(target.deployment.name)
            await self._letters.reserve(spec.task_id, new_id, version)
            async with self._letters.held(spec.task_id) as held:
                if held is None:
                    raise NotADeadLetterError("it was purged", task_id=spec.task_id)
                if held.letter.settled and not await self._reopened(held):
                    receipt = await self._existing(held.letter)
                else:
                    receipt = await self._settle(held, target, planned)
            if receipt is not None:
                return receipt
        raise ConflictError(
            "others redrive it to another version", task_id=spec.task_id, retry_after=1.0
        )

    async def _reopened(self, held: Held) -> bool:
        """Makes it a dead letter again if the task that repeats it is lost; else returns False."""
        letter = held.letter
        if letter.redriven_on is None or await self._repeating(letter) is not None:
            return False
        spec = letter.task.spec
        log.warning("task %s repeats %s and is lost", letter.redriven_as, spec.task_id)
        await self._queue(letter.redriven_on).free(
            spec.tenant, KEY + spec.task_id, letter.redriven_as or ""
        )
        await held.reopen()
        return True

    async def _settle(self, held: Held, target: Target, planned: TaskSpec) -> Receipt | None:
        """Puts the reserved task into the queue unless it is there.

        Returns None if the reservation was for another version and came to nothing.
        """
        until = time.monotonic() + HOLD / 2
        letter, new_id = held.letter, held.letter.redriven_as
        if new_id is None:
            return None
        known = await self._live(letter)
        if known is None and letter.redriven_version != planned.model_version:
            if await self._arrived(letter):
                await held.settle(new_id)
                return await self._existing(letter)
            await held.forget()
            return None
        if known is not None:
            await held.settle(new_id)
            return Receipt.of(known)
        spec = msgspec.structs.replace(planned, task_id=new_id)
        receipt = await self._enqueue(target, spec, until)
        await held.settle(receipt.task_id)
        if not receipt.existing:
            DEAD_LETTERS_REDRIVEN.labels(spec.model, str(spec.model_version)).inc()
        return receipt

    async def _arrived(self, letter: DeadLetter) -> bool:
        """Whether the new task was accepted; from now on it is not, if it is on its way still."""
        spec, name = letter.task.spec, letter.redriven_on
        if name is None:
            return False
        key = KEY + spec.task_id
        return await self._queue(name).holder(spec.tenant, key, give_up=True) is not None

    async def _enqueue(self, target: Target, spec: TaskSpec, until: float) -> Receipt:
        """Accepts the new task; nothing else can be using its id while the row is locked."""
        submit = Submit(spec, encode(spec))
        if len(submit.encoded) > self._settings.inline_limit:
            spec = await payloads.store_input(self._store, spec)
            submit = Submit(spec, encode(spec))
        if time.monotonic() > until:
            # PostgreSQL may soon let somebody else have the row.
            raise StorageUnavailableError("it took too long to get here", task_id=spec.redrive_of)
        queue = self._queue(target.deployment.name)
        limit = target.deployment.max_queue
        try:
            # It may have been given up here, see `_arrived`.
            await queue.free(spec.tenant, KEY + str(spec.redrive_of))
            # Not as a new task: Redis may have had it and lost it, while an attempt goes on.
            (answer,) = await queue.enqueue([submit], max_queue=limit, version=2)
        except InferstackError as error:
            raise error.about(spec.redrive_of) from error
        if answer.status is Enqueued.DUPLICATE:
            spec = msgspec.structs.replace(spec, task_id=answer.task_id)
            return Receipt(spec, TaskState.QUEUED, 0, 0.0, answer.created_at, existing=True)
        if answer.status is not Enqueued.OK and spec.data_ref is not None:
            await payloads.discard(self._store, [spec.data_ref])
        raise_refusal(target, answer)
        wait = target.wait_for(answer.ahead)
        return Receipt(spec, TaskState.QUEUED, answer.ahead + 1, wait, answer.created_at)

    async def _plan(self, letter: DeadLetter, target: Target, changes: Changes) -> TaskSpec:
        """The new task but for its id; its input is checked as that of any other is."""
        old = letter.task.spec
        data = await self._input(old)
        cost = await asyncio.to_thread(target.admission.check, data)
        return TaskSpec(
            task_id="",
            model=target.deployment.model,
            model_version=target.deployment.version,
            tenant=old.tenant,
            data=data,
            priority=changes.priority or old.priority,
            timeout=old.timeout if changes.timeout is UNSET else changes.timeout,
            cost=cost,
            user=old.user,
            webhook=old.webhook,
            metadata=old.metadata,
            idempotency_key=KEY + old.task_id,
            redrive_of=old.task_id,
        )

    async def _input(self, old: TaskSpec) -> dict[str, Any]:
        try:
            raw = old.data if old.data_ref is None else await self._store.get(old.data_ref)
        except NotFoundError:
            raw = None
        if raw is None:
            raise ConflictError("its input was not kept, so it can only be purged")
        return msgspec.json.decode(raw, type=dict[str, Any])

    async def _live(self, letter: DeadLetter) -> Task | None:
        """The task that repeats a dead letter, as Redis has it.

        Asked of its own queue, since its deployment may have been taken off the directory.
        """
        name = letter.redriven_on
        if letter.redriven_as is None or name is None:
            return None
        (task,) = await self._queue(name).load([letter.redriven_as])
        return task

    async def _repeating(self, letter: DeadLetter) -> Task | None:
        """The task that repeats a dead letter, from wherever it is."""
        found = await self._live(letter)
        if found is None and letter.redriven_as is not None:
            archived = await self._letters.get(letter.redriven_as)
            found = None if archived is None else archived.task
        return found

    async def _existing(self, letter: DeadLetter) -> Receipt | None:
        """The receipt of the task that repeats a dead letter; None if that is lost."""
        found = await self._repeating(letter)
        if found is None and letter.redriven_version is None:
            raise NotADeadLetterError(
                f"it was redriven as {letter.redriven_as}, which has been removed since",
                task_id=letter.task.spec.task_id,
            )
        return None if found is None else Receipt.of(found)

    def _queue(self, deployment: str) -> TaskQueue:
        return TaskQueue(self._redis, deployment, self._settings)
