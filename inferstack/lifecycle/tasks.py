"""The callers' side of a task's life: submit, wait, read, cancel, list."""

import asyncio
from collections.abc import Sequence

from inferstack.config import Settings
from inferstack.deployment import Deployment
from inferstack.errors import InferstackError, TaskNotFoundError
from inferstack.lifecycle import payloads
from inferstack.lifecycle.directory import Directory, Target
from inferstack.lifecycle.intake import Intake
from inferstack.lifecycle.reader import Reader
from inferstack.lifecycle.refusals import raise_refusal
from inferstack.lifecycle.ticket import Ticket
from inferstack.lifecycle.types import Answer, BatchAnswer, Caller, Position, Receipt, Submission
from inferstack.lifecycle.waits import Departure, Waits
from inferstack.queue.completions import CompletionChannel
from inferstack.queue.connection import Redis, connect
from inferstack.queue.key_routes import UNUSED, KeyRoutes
from inferstack.queue.statistics import QueueStatistics
from inferstack.queue.types import Enqueued
from inferstack.queue.withdraw import withdraw
from inferstack.storage.history import History, HistoryFilter, HistoryPage
from inferstack.storage.objects import ObjectStore
from inferstack.task import Task, TaskSpec, TaskState

STRIDE = 32
"""Submissions of a batch that are checked before others may use the event loop."""


class Tasks:
    """One object a process; everything that the API does with tasks goes through it."""

    def __init__(
        self, redis: "Redis", store: ObjectStore, history: History, settings: Settings
    ) -> None:
        """Args: redis: for commands; completions come over a connection of their own."""
        self._redis = redis
        self._store = store
        self._history = history
        self._listening = connect(str(settings.redis_url), timeout=None)
        self._channel = CompletionChannel(self._listening, self._sweep)
        self._directory = Directory(redis, self._channel.name, settings)
        self._waits = Waits()
        self._reader = Reader(self._directory, self._channel, self._waits, store, history)
        keys = KeyRoutes(redis, min(UNUSED, settings.idempotency_ttl))
        self._intake = Intake(self._directory, keys, store, settings)

    async def start(self) -> None:
        """Connects; returns once completions arrive and the deployments are known.

        Waits for Redis as long as that takes.

        Raises:
            ConfigurationError: Redis refuses the credentials.
        """
        await self._channel.start()
        await self._directory.start()

    def cut_waits(self, seconds: float) -> None:
        """From now on nobody waits for a task longer than `seconds`: this process shall end."""
        self._waits.cut(seconds)

    async def stop(self) -> None:
        """Commits what is on its way in, then disconnects."""
        self._intake.stop()
        await self._directory.stop()
        await self._channel.stop()
        await self._listening.aclose()

    async def submit(
        self,
        caller: Caller,
        submission: Submission,
        *,
        idempotency_key: str | None = None,
        trace: str | None = None,
    ) -> Receipt:
        """Accepts a task: when this returns it is durable.

        Raises:
            InvalidInputError: the model does not take this input.
            ModelNotFoundError: no such model or version.
            TenantQueueFullError, QueueFullError: no room; `retry_after` says when to come back.
            IdempotencyMismatchError: the key belongs to another body.
            QueueUnavailableError: not known whether it was accepted; `task_id` tells what to ask.
        """
        return await self._submit(caller, submission, idempotency_key, trace)

    async def run(
        self,
        caller: Caller,
        submission: Submission,
        wait: float,
        *,
        idempotency_key: str | None = None,
        trace: str | None = None,
        departure: Departure | None = None,
        target: Target | None = None,
    ) -> Answer:
        """Submits and waits: the finished task, or its receipt when `wait` seconds pass first.

        A task whose caller departs meanwhile is cancelled, and its idempotency key is free: who
        waits under it, too, then waits for a new task. `target` is for the method itself.
        Errors as in `submit`.
        """
        target, submit = await self._intake.prepare(
            caller, submission, idempotency_key, trace, target=target, watch=True
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        ticket = Ticket(submit, loop, waits=True)
        await self._attend(target, ticket, wait, departure)
        answer, news = ticket.answer, ticket.news
        if news is not None:
            created_at = answer.created_at if answer else news.completed_at
            return await self._reader.with_result(news.task(submit.spec, created_at))
        left = max(0.0, until - loop.time())
        other: Target | None = None
        if answer is not None and answer.status is Enqueued.DUPLICATE and ticket.unused:
            if (joined := await self._join(caller, target, ticket, left)) is not None:
                return joined
        elif departure is not None and departure.gone:
            await withdraw(self._redis, submit.spec)
            return await self._receipt(target, ticket)
        elif (other := self._elsewhere(target, ticket)) is None:
            return await self._receipt(target, ticket)
        return await self.run(
            caller,
            submission,
            left,
            idempotency_key=idempotency_key,
            trace=trace,
            departure=departure,
            target=other,
        )

    async def submit_many(
        self,
        caller: Caller,
        items: Sequence[Submission | InferstackError],
        *,
        idempotency_key: str | None = None,
        trace: str | None = None,
    ) -> Sequence[BatchAnswer]:
        """Submits many; each answer is a receipt or the error of that one.

        What is an error already keeps its place, and is its own answer. An idempotency key
        covers the whole batch: item `i` is submitted under the key and `i`, parted by a
        character that no key of a caller holds.
        """
        answers: list[asyncio.Task[BatchAnswer]] = []
        for i, item in enumerate(items):
            key = idempotency_key and f"{idempotency_key}\x1f{i}"
            answer = self._answer(caller, item, key, trace, inputs=len(items))
            answers.append(asyncio.create_task(answer))
            if len(answers) % STRIDE == 0:
                await asyncio.sleep(0)
        return await asyncio.gather(*answers)

    async def get(self, caller: Caller, task_id: str, wait: float = 0.0) -> Task:
        """The task as it is now, or as it is when it finishes within `wait` seconds.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
        """
        return await self._reader.get(caller, task_id, wait)

    async def position(self, caller: Caller, task_id: str) -> Position:
        """Where a task stands in its queue now; errors as in `get`."""
        return await self._reader.position(caller, task_id)

    async def request(self, caller: Caller, task_id: str) -> TaskSpec:
        """What a task was asked for, with its input; errors as in `get`.

        Raises:
            ConflictError: its input was not kept.
        """
        return await self._reader.request(caller, task_id)

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """Cancels a task unless it has finished; returns it as it is then.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
            QueueUnavailableError: Redis has lost it, and it is about to be queued again.
        """
        return await self._reader.cancel(caller, task_id)

    async def list(self, caller: Caller, wanted: HistoryFilter) -> HistoryPage:
        """A page of history, newest first; unfinished tasks are shown as they are now."""
        return await self._reader.list(caller, wanted)

    @property
    def directory(self) -> Directory:
        """What this process knows of the deployments."""
        return self._directory

    def deployments(self) -> Sequence[Deployment]:
        """Every known deployment."""
        return [target.deployment for target in self._directory.targets()]

    def statistics(self) -> dict[str, QueueStatistics]:
        """The queues as they were at most a second ago, by deployment."""
        return {
            target.deployment.name: target.statistics
            for target in self._directory.targets()
            if target.statistics is not None
        }

    async def refresh(self) -> None:
        """Looks at the deployments and queues now."""
        await self._directory.refresh()

    async def _submit(
        self,
        caller: Caller,
        submission: Submission,
        key: str | None,
        trace: str | None,
        *,
        inputs: int = 1,
        target: Target | None = None,
    ) -> Receipt:
        target, submit = await self._intake.prepare(
            caller, submission, key, trace, target=target, inputs=inputs
        )
        ticket = Ticket(submit, asyncio.get_running_loop(), waits=False)
        await self._enqueue(target, ticket)
        if (other := self._elsewhere(target, ticket)) is not None:
            return await self._submit(caller, submission, key, trace, inputs=inputs, target=other)
        try:
            return await self._receipt(target, ticket)
        except TaskNotFoundError:
            await self._free(target, ticket)
        return await self._submit(caller, submission, key, trace, inputs=inputs)

    async def _free(self, target: Target, ticket: Ticket) -> None:
        """Frees an idempotency key whose task was purged, so that it makes a new one."""
        spec = ticket.submit.spec
        await target.queue.free(spec.tenant, spec.idempotency_key or "", ticket.holder)

    def _elsewhere(self, target: Target, ticket: Ticket) -> Target | None:
        """What takes over where the queue turned a task away since its circuit is open.

        This process may not have known it yet, or others try the deployment at the same time.
        """
        answer = ticket.answer
        if answer is None or answer.status is not Enqueued.OPEN or not ticket.submit.moves:
            return None
        return self._directory.fallback(target)

    async def _answer(
        self,
        caller: Caller,
        item: Submission | InferstackError,
        key: str | None,
        trace: str | None,
        *,
        inputs: int,
    ) -> BatchAnswer:
        if isinstance(item, InferstackError):
            return item
        try:
            return await self._submit(caller, item, key, trace, inputs=inputs)
        except InferstackError as error:
            return error

    async def _attend(
        self, target: Target, ticket: Ticket, wait: float, departure: Departure | None
    ) -> None:
        """Enqueues; returns when the task has finished or is another's, at the latest after `wait`.

        Earlier if the caller departs.
        """
        task_id = ticket.submit.spec.task_id
        self._channel.listen(task_id, ticket.finished)
        waiting = self._waits.begin(wait, ticket.timed_out)
        if departure is not None:
            departure.then(ticket.timed_out)
        try:
            await self._enqueue(target, ticket)
        finally:
            self._waits.finish(waiting, ticket.timed_out)
            self._channel.forget(task_id, ticket.finished)

    async def _enqueue(self, target: Target, ticket: Ticket) -> None:
        target.committer.add(ticket)
        spec = ticket.submit.spec
        try:
            await ticket.future
        except InferstackError as error:
            raise error.about(spec.task_id) from error
        if spec.data_ref is not None and ticket.unused:
            await payloads.discard(self._store, [spec.data_ref])

    async def _receipt(self, target: Target, ticket: Ticket) -> Receipt:
        answer, spec = ticket.answer, ticket.submit.spec
        assert answer is not None, "the future resolves after the answer is noted"
        if answer.status is Enqueued.DUPLICATE and ticket.unused:
            return await self._existing(target, answer.task_id)
        raise_refusal(target, answer)
        position = answer.ahead + 1
        wait = target.wait_for(answer.ahead)
        return Receipt(spec, TaskState.QUEUED, position, wait, answer.created_at)

    async def _existing(self, target: Target, task_id: str) -> Receipt:
        """The receipt of the task that holds an idempotency key."""
        task = await target.queue.get(task_id) or await self._history.get(task_id)
        if task is None:
            raise TaskNotFoundError(task_id=task_id)
        return Receipt.of(task)

    async def _join(
        self, caller: Caller, target: Target, ticket: Ticket, wait: float
    ) -> Answer | None:
        """Waits for a task that was submitted before with the same key.

        None if it was purged, or if who submitted it departed: then the key is free.
        """
        try:
            task = await self._reader.get(caller, ticket.holder, max(wait, 0.001))
        except TaskNotFoundError:
            return await self._left(target, ticket)
        if task.state is TaskState.CANCELLED and not await self._holds(target, ticket):
            return None
        if task.state.terminal:
            return task
        return Receipt.of(task)

    async def _holds(self, target: Target, ticket: Ticket) -> bool:
        """Whether the task of before still has the key."""
        spec = ticket.submit.spec
        holder = await target.queue.holder(spec.tenant, spec.idempotency_key or "")
        return holder == ticket.holder

    async def _left(self, target: Target, ticket: Ticket) -> Receipt | None:
        """The receipt of a task that its reader does not find; None if it was purged.

        A deployment that is gone may have one that history does not know yet.
        """
        try:
            return await self._existing(target, ticket.holder)
        except TaskNotFoundError:
            await self._free(target, ticket)
            return None

    async def _sweep(self, task_ids: Sequence[str]) -> None:
        await self._reader.sweep(task_ids)
