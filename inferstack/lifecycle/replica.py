"""A replica's side of a task's life: claim, begin, complete, fail, release."""

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Sequence

import msgspec

from inferstack import failpoint, retry
from inferstack.config import Settings
from inferstack.deployment import Deployment, ReplicaStatus
from inferstack.errors import (
    EngineError,
    InferstackError,
    NotFoundError,
    OutputMismatchError,
    QueueUnavailableError,
    StorageUnavailableError,
)
from inferstack.lifecycle import payloads
from inferstack.queue.bell import Bell
from inferstack.queue.codec import encode
from inferstack.queue.connection import Redis
from inferstack.queue.drops import Drops
from inferstack.queue.notes import Notes
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Claim, Completion, Failure, Retry
from inferstack.storage.objects import ObjectStore
from inferstack.task import Execution, TaskError, TaskSpec
from inferstack.telemetry.logs import tell

log = logging.getLogger(__name__)

LONGEST_WAIT = 5.0
"""Seconds that a replica may wait for the bell at a time."""
LOAD_PATIENCE = 0.2
"""Seconds that a claim waits for large inputs; those that take longer come with a later claim."""
MOST_LOADING = 64
"""Large inputs on their way at which nothing more is claimed: bounds memory."""

ENGINE_FAILURES = frozenset({EngineError.slug, OutputMismatchError.slug})
"""Types of errors that speak against the engine, not against an input."""

INPUT_MISSING = "input-missing"
"""Type of the error of a task whose large input is gone."""


class Lease(msgspec.Struct, frozen=True):
    """The right to run one task, until the lease runs out."""

    task_id: str
    attempt: int
    """With the name of the replica the fence: only the newest attempt can complete the task."""
    crashes: int
    """Replicas that died with this task in their batch."""
    spec: TaskSpec
    """With the input in it, wherever it was stored."""
    failures: int = 0
    """Attempts before this one that failed and were charged."""
    number: int = 0
    """Which of the leases of this replica it is: no two have the same."""


class ReplicaSession:
    """What one replica does with the queue of its deployment.

    Every method raises QueueUnavailableError when Redis does not answer; each is safe to repeat.
    """

    def __init__(
        self,
        redis: "Redis",
        deployment: Deployment,
        store: ObjectStore,
        worker: str,
        settings: Settings,
    ) -> None:
        """Args: worker: a name that no other process has ever had."""
        self.worker = worker
        self.stale = 0
        """Completions and failures refused because another attempt holds the task."""
        self.inline_limit = settings.inline_limit
        self.retried = 0
        """Failed attempts that get another."""
        self.reaped = 0
        """Tasks taken back from replicas that fell silent, and not failed for that."""
        self._queue = TaskQueue(redis, deployment.name, settings)
        self._bell = Bell(str(settings.redis_url), deployment.name, LONGEST_WAIT)
        self._drops = Drops(str(settings.redis_url), deployment.name)
        self._store = store
        self._batch_size = deployment.batch_size
        self._settings = settings
        keep = 2 * (deployment.compute_timeout + settings.lease)
        self._notes = Notes(str(settings.redis_url), deployment.name, worker, keep)
        self._random = random.Random()
        self._loading: dict[asyncio.Task[Lease | None], Claim] = {}
        self._numbers = itertools.count(1)

    async def claim(self, limit: int) -> list[Lease]:
        """Leases up to `limit` waiting tasks, inputs loaded; hardly blocks.

        Those whose large input takes long come with a later claim, beyond its limit: a store
        that is slow or hangs holds up no task that does not need it.
        """
        if len(self._loading) >= MOST_LOADING:
            return self._loaded()
        failpoint.hit("before-claim")
        claims = await self._queue.claim(self.worker, limit, self._batch_size)
        if claims:
            failpoint.hit("after-claim")
            self._tell("claimed", (claim.task_id for claim in claims))
        leases = [self._lease(claim) for claim in claims if claim.spec.data_ref is None]
        if len(leases) < len(claims):
            large = [claim for claim in claims if claim.spec.data_ref is not None]
            loads = {asyncio.create_task(self._load_input(claim)): claim for claim in large}
            self._loading |= loads
            await asyncio.wait(loads, timeout=LOAD_PATIENCE)
        return leases + self._loaded() if self._loading else leases

    async def wait(self, seconds: float) -> None:
        """Returns when the bell rings or after `seconds`, at most LONGEST_WAIT.

        Earlier while inputs are on their way, which `claim` hands out.
        """
        longest = LOAD_PATIENCE if self._loading else LONGEST_WAIT
        await self._bell.wait(min(seconds, longest))

    async def listen(self, drop: Callable[[str], object]) -> None:
        """Calls `drop` with the id of each running task that was cancelled or expired; for ever."""
        await self._drops.listen(drop)

    async def begin(self, leases: Sequence[Lease]) -> None:
        """Notes that a batch computes from now on: a crash counts against its tasks only."""
        await self._notes.write([(lease.task_id, lease.attempt) for lease in leases])

    async def complete(self, done: Sequence[tuple[Lease, bytes, Execution]]) -> None:
        """Stores results, each JSON. Those of lost leases are removed and counted.

        Large results come last. A task whose large result the object store does not take is
        tried again later, at no charge.
        """
        limit = self.inline_limit
        await self._complete(
            [
                Completion(lease.task_id, lease.attempt, body, "", encode(run))
                for lease, body, run in done
                if len(body) <= limit
            ]
        )
        stored = await asyncio.gather(
            *(self._store_result(*item) for item in done if len(item[1]) > limit)
        )
        await self._complete([completion for completion in stored if completion is not None])

    async def _complete(self, completions: Sequence[Completion]) -> None:
        if not completions:
            return
        failpoint.hit("before-complete")
        statuses = await self._queue.complete(self.worker, completions)
        failpoint.hit("after-complete")
        self._tell("has a result", (completion.task_id for completion in completions))
        self.stale += statuses.count("stale")
        answered = zip(completions, statuses, strict=True)
        if unsure := [each for each, status in answered if each.result_ref and status != "ok"]:
            await self._discard(unsure)

    async def fail(self, failed: Sequence[tuple[Lease, TaskError, Execution]]) -> None:
        """Ends failed attempts: a retry after a while if the error allows one, else failed."""
        statuses = await self._queue.fail(
            self.worker,
            [
                Failure(
                    lease.task_id,
                    lease.attempt,
                    Retry.CHARGED if error.retryable else Retry.FINAL,
                    # Not by its attempts: a drain or the crash of a neighbour took some of them.
                    self._delay(lease.failures + 1),
                    encode(error),
                    encode(run),
                    engine=error.type in ENGINE_FAILURES,
                )
                for lease, error, run in failed
            ],
        )
        self.stale += statuses.count("stale")
        self.retried += statuses.count("retry")
        for (lease, error, _), status in zip(failed, statuses, strict=True):
            # That it failed for good is for the recorder to say: it hears of every way to fail.
            if status == "retry":
                what = f"its attempt failed and is repeated: {error.message}"
                self._tell(what, [lease.task_id], logging.INFO, error=error.type)

    async def release(self, leases: Sequence[Lease]) -> None:
        """Gives tasks back unharmed; no attempt is charged."""
        if leases:
            held = [(lease.task_id, lease.attempt) for lease in leases]
            await self._queue.release(self.worker, held)
            self._tell("given back", (lease.task_id for lease in leases))

    async def extend(self, leases: Sequence[Lease]) -> set[str]:
        """Prolongs leases; returns ids that are lost: cancelled, expired or taken back.

        Also those that wait for their input.
        """
        held = [(lease.task_id, lease.attempt) for lease in leases]
        held += [(claim.task_id, claim.attempt) for claim in self._loading.values()]
        lost = await self._queue.extend(self.worker, held) if held else set()
        for task, claim in list(self._loading.items()):
            if claim.task_id in lost:
                del self._loading[task]
        return lost

    async def heartbeat(self, status: ReplicaStatus) -> None:
        """Says that the replica lives, and lets time pass in the queue. Call every second."""
        note = self._notes.latest
        if await self._queue.heartbeat(status) != note == self._notes.latest:
            await self._notes.repeat()
        _, _, reaped, crashed = await self._queue.tick()
        self.reaped += reaped - crashed

    async def leave(self) -> None:
        """Takes the replica off the live ones; gives back what never got its input."""
        loading, self._loading = self._loading, {}
        for task in loading:
            task.cancel()
        await self.release([self._lease(claim) for claim in loading.values()])
        await self._queue.leave(self.worker)
        await self._bell.close()
        await self._notes.close()
        await self._drops.close()

    def _tell(
        self, what: str, task_ids: Iterable[str], level: int = logging.DEBUG, **more: object
    ) -> None:
        tell(log, level, what, task_ids, worker=self.worker, **more)

    def _delay(self, tries: int) -> float:
        config = self._settings
        return retry.full_jitter(tries, config.retry_delay, config.max_retry_delay, self._random)

    async def _store_result(self, lease: Lease, body: bytes, run: Execution) -> Completion | None:
        """Puts a large result into the object store; None if its task had to be given back."""
        key = payloads.result_key(lease.task_id, lease.attempt, self.worker, lease.number)
        try:
            await self._store.put(key, body)
        except StorageUnavailableError as error:
            await self._give_up(lease, error, Retry.FREE)
            return None
        return Completion(lease.task_id, lease.attempt, b"", key, encode(run))

    async def _discard(self, unsure: Sequence[Completion]) -> None:
        """Removes large results that their tasks do not refer to.

        A completion is also stale when it is repeated after its task was archived and
        forgotten. Such a task is not in Redis any more, and its result must stay.
        """
        try:
            tasks = await self._queue.load([completion.task_id for completion in unsure])
        except QueueUnavailableError as error:
            left = (completion.task_id for completion in unsure)
            what = f"the result of a stale attempt stays behind: {error}"
            self._tell(what, left, logging.WARNING)
            return
        refs = [
            completion.result_ref
            for completion, task in zip(unsure, tasks, strict=True)
            if task is not None and task.result_ref != completion.result_ref
        ]
        await payloads.discard(self._store, refs)

    def _loaded(self) -> list[Lease]:
        """Leases whose input has come."""
        done = [task for task in self._loading if task.done()]
        for task in done:
            del self._loading[task]
        return [lease for task in done if (lease := task.result()) is not None]

    async def _load_input(self, claim: Claim) -> Lease | None:
        """The lease with its input; None if it had to be given back or failed for want of it."""
        lease = self._lease(claim)
        problem: InferstackError
        try:
            # There is no use in waiting longer: the store has given up by then.
            async with asyncio.timeout(self._settings.lease):
                spec = await payloads.load_input(self._store, claim.spec)
        except TimeoutError:
            text = f"the object store did not answer within {self._settings.lease:g} s"
            problem, how = StorageUnavailableError(text), Retry.FREE
        except NotFoundError as error:
            problem, how = error, Retry.FINAL
        except StorageUnavailableError as error:
            problem, how = error, Retry.FREE
        else:
            return msgspec.structs.replace(lease, spec=spec)
        try:
            await self._give_up(lease, problem, how)
        except QueueUnavailableError as lost:
            # Its lease runs out, and it has not begun; the others of this claim go on.
            self._tell(f"stays leased: {lost}", [lease.task_id], logging.WARNING)
        return None

    async def _give_up(self, lease: Lease, problem: InferstackError, how: Retry) -> None:
        self._tell(f"is given back: {problem}", [lease.task_id], logging.WARNING)
        kind = INPUT_MISSING if isinstance(problem, NotFoundError) else problem.slug
        error, run = TaskError(kind, problem.detail), encode(Execution(self.worker))
        # Free of charge, so only its attempts tell how long it goes on.
        delay = self._delay(lease.attempt)
        failure = Failure(
            lease.task_id, lease.attempt, how, delay, encode(error), run, engine=False
        )
        await self._queue.fail(self.worker, [failure])

    def _lease(self, claim: Claim) -> Lease:
        task_id, attempt, crashes, failures, spec = claim
        return Lease(task_id, attempt, crashes, spec, failures, next(self._numbers))
