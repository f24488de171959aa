"""The callers' side of a task's life: submit, wait, read, cancel, list."""

import asyncio
import itertools
from collections.abc import Sequence
from functools import partial

from inferstack.config import Settings
from inferstack.deployment import Deployment
from inferstack.errors import InferstackError, TaskNotFoundError
from inferstack.lifecycle import payloads
from inferstack.lifecycle.directory import Directory, Target
from inferstack.lifecycle.intake import Intake
from inferstack.lifecycle.refusals import raise_refusal
from inferstack.lifecycle.ticket import Ticket
from inferstack.lifecycle.types import Answer, BatchAnswer, Caller, Receipt, Submission
from inferstack.lifecycle.waits import Waits
from inferstack.queue.codec import News, news_of
from inferstack.queue.completions import CompletionChannel
from inferstack.queue.connection import Redis, connect
from inferstack.queue.key_routes import KeyRoutes
from inferstack.queue.statistics import QueueStatistics
from inferstack.queue.task_queue import Accepted, Enqueued
from inferstack.storage.history import History, HistoryFilter, HistoryPage
from inferstack.storage.objects import ObjectStore
from inferstack.task import Task, TaskState

UNFINISHED = (TaskState.QUEUED, TaskState.RUNNING)


class Tasks:
    """One object a process; everything that the API does with tasks goes through it."""

    def __init__(
        self, redis: "Redis", store: ObjectStore, history: History, settings: Settings
    ) -> None:
        """Args: redis: for commands; completions come over a connection of their own."""
        self._store = store
        self._history = history
        self._listening = connect(str(settings.redis_url), timeout=None)
        self._channel = CompletionChannel(self._listening, self._sweep)
        self._directory = Directory(redis, self._channel.name, settings)
        self._waits = Waits()
        keys = KeyRoutes(redis, settings.idempotency_ttl)
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
    ) -> Answer:
        """Submits and waits: the finished task, or its receipt when `wait` seconds pass first.

        Errors as in `submit`.
        """
        target, submit = await self._intake.prepare(
            caller, submission, idempotency_key, trace, watch=True
        )
        loop = asyncio.get_running_loop()
        ticket = Ticket(submit, loop, waits=True)
        task_id = submit.spec.task_id
        self._channel.listen(task_id, ticket.finished)
        until = loop.time() + wait
        waiting = self._waits.begin(wait, ticket.timed_out)
        try:
            news = await self._enqueue(target, ticket)
        finally:
            self._waits.finish(waiting, ticket.timed_out)
            self._channel.forget(task_id, ticket.finished)
        answer = ticket.answer
        if news is not None:
            created_at = answer.created_at if answer else news.completed_at
            return await self._finished(news.task(submit.spec, created_at))
        if answer is not None and answer.status is Enqueued.DUPLICATE:
            return await self._join(caller, answer.task_id, until - loop.time())
        return await self._receipt(target, ticket)

    async def submit_many(
        self,
        caller: Caller,
        submissions: Sequence[Submission],
        *,
        idempotency_key: str | None = None,
        trace: str | None = None,
    ) -> Sequence[BatchAnswer]:
        """Submits many; each answer is a receipt or the error of that one.

        An idempotency key covers the whole batch: item `i` is submitted under the key and
        `i`, parted by a character that no key of a caller holds.
        """
        count = len(submissions)
        keys = [idempotency_key and f"{idempotency_key}\x1f{i}" for i in range(count)]
        answers = await asyncio.gather(
            *(
                self._submit(caller, submission, key, trace, inputs=count)
                for submission, key in zip(submissions, keys, strict=True)
            ),
            return_exceptions=True,
        )
        return [_expected(answer) for answer in answers]

    async def get(self, caller: Caller, task_id: str, wait: float = 0.0) -> Task:
        """The task as it is now, or as it is when it finishes within `wait` seconds.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
        """
        target, task = await self._find(caller, task_id)
        if wait > 0 and target is not None and not task.state.terminal:
            task = await self._await(target, task, wait)
        return await self._finished(task)

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """Cancels a task unless it has finished; returns it as it is then.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
        """
        target, task = await self._find(caller, task_id)
        if target is not None and not task.state.terminal:
            await target.queue.cancel(task_id)
            task = await target.queue.get(task_id) or task
        return await self._finished(task)

    async def list(self, caller: Caller, wanted: HistoryFilter) -> HistoryPage:
        """A page of history, newest first; unfinished tasks are shown as they are now."""
        tenant = None if caller.role == "admin" else caller.tenant
        page = await self._history.list(tenant, wanted)
        live = await self._live([task for task in page.tasks if not task.state.terminal])
        tasks = [live.get(task.spec.task_id, task) for task in page.tasks]
        if wanted.status in UNFINISHED:
            tasks = [task for task in tasks if task.state == wanted.status]
        return HistoryPage(tasks=tasks, next_cursor=page.next_cursor)

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

    # Submitting.

    async def _submit(
        self,
        caller: Caller,
        submission: Submission,
        key: str | None,
        trace: str | None,
        *,
        inputs: int = 1,
    ) -> Receipt:
        target, submit = await self._intake.prepare(caller, submission, key, trace, inputs=inputs)
        ticket = Ticket(submit, asyncio.get_running_loop(), waits=False)
        await self._enqueue(target, ticket)
        return await self._receipt(target, ticket)

    async def _enqueue(self, target: Target, ticket: Ticket) -> News | None:
        target.committer.add(ticket)
        spec = ticket.submit.spec
        try:
            news = await ticket.future
        except InferstackError as error:
            raise type(error)(
                error.detail, task_id=spec.task_id, retry_after=error.retry_after
            ) from error
        if spec.data_ref is not None and ticket.unused:
            await payloads.discard(self._store, [spec.data_ref])
        return news

    async def _receipt(self, target: Target, ticket: Ticket) -> Receipt:
        answer, spec = ticket.answer, ticket.submit.spec
        assert answer is not None, "the future resolves after the answer is noted"
        if answer.status is Enqueued.DUPLICATE and answer.task_id != spec.task_id:
            return await self._existing(target, answer)
        raise_refusal(target, answer)
        position = answer.ahead + 1
        wait = target.wait_for(answer.ahead)
        return Receipt(spec, TaskState.QUEUED, position, wait, answer.created_at)

    async def _existing(self, target: Target, answer: Accepted) -> Receipt:
        """The receipt of the task that holds an idempotency key."""
        task = await target.queue.get(answer.task_id) or await self._history.get(answer.task_id)
        if task is None:
            raise TaskNotFoundError(task_id=answer.task_id)
        return Receipt(task.spec, task.state, 0, 0.0, task.created_at, existing=True)

    async def _join(self, caller: Caller, task_id: str, wait: float) -> Answer:
        """Waits for a task that was submitted before with the same key."""
        task = await self.get(caller, task_id, max(wait, 0.001))
        if task.state.terminal:
            return task
        return Receipt(task.spec, task.state, 0, 0.0, task.created_at, existing=True)

    # Reading.

    async def _find(self, caller: Caller, task_id: str) -> tuple[Target | None, Task]:
        """The task and, while Redis has it, where it is; PostgreSQL has it afterwards."""
        for target in self._directory.candidates(task_id):
            task = await target.queue.get(task_id)
            if task is not None:
                return target, _visible(caller, task, task_id)
        return None, _visible(caller, await self._history.get(task_id), task_id)

    async def _await(self, target: Target, task: Task, wait: float) -> Task:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[News | None] = loop.create_future()

        def resolve(news: News | None) -> None:
            if not future.done():
                future.set_result(news)

        task_id = task.spec.task_id
        self._channel.listen(task_id, resolve)
        end = partial(resolve, None)
        waiting = self._waits.begin(wait, end)
        try:
            state = await target.queue.watch(task_id, self._channel.name)
            news = await future if state in UNFINISHED else None
        finally:
            self._waits.finish(waiting, end)
            self._channel.forget(task_id, resolve)
        if news is not None:
            return news.task(task.spec, task.created_at)
        return await target.queue.get(task_id) or await self._history.get(task_id) or task

    async def _live(self, tasks: Sequence[Task]) -> dict[str, Task]:
        """What Redis knows of these tasks now."""
        by_deployment = itertools.groupby(
            sorted(tasks, key=lambda task: task.spec.deployment),
            key=lambda task: task.spec.deployment,
        )
        found: dict[str, Task] = {}
        targets = {target.deployment.name: target for target in self._directory.targets()}
        for name, group in by_deployment:
            if name in targets:
                rows = await targets[name].queue.load([task.spec.task_id for task in group])
                found |= {task.spec.task_id: task for task in rows if task is not None}
        return found

    async def _finished(self, task: Task) -> Task:
        return await payloads.load_result(self._store, task) if task.result_ref else task

    async def _sweep(self, task_ids: Sequence[str]) -> None:
        """Delivers what finished while no completion could arrive."""
        await asyncio.gather(*(self._sweep_one(task_id) for task_id in task_ids))

    async def _sweep_one(self, task_id: str) -> None:
        for target in self._directory.candidates(task_id):
            task = await target.queue.get(task_id)
            if task is not None and task.state.terminal:
                self._channel.deliver(news_of(task))


def _visible(caller: Caller, task: Task | None, task_id: str) -> Task:
    if task is None or not caller.may_see(task):
        raise TaskNotFoundError(f"there is no task {task_id}", task_id=task_id)
    return task


def _expected(answer: Receipt | BaseException) -> BatchAnswer:
    if isinstance(answer, Receipt | InferstackError):
        return answer
    raise answer
