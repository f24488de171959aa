"""How callers find, await, cancel and list tasks, wherever these are."""

import asyncio
import itertools
from collections.abc import Sequence
from functools import partial

from inferstack.errors import (
    ConflictError,
    NotFoundError,
    QueueUnavailableError,
    TaskNotFoundError,
)
from inferstack.lifecycle import payloads
from inferstack.lifecycle.directory import Directory, Target
from inferstack.lifecycle.types import Caller, Position
from inferstack.lifecycle.waits import Waits
from inferstack.queue.codec import UNREADABLE, News, news_of
from inferstack.queue.completions import CompletionChannel
from inferstack.queue.task_queue import TaskQueue
from inferstack.storage.history import History, HistoryFilter, HistoryPage
from inferstack.storage.objects import ObjectStore
from inferstack.task import Task, TaskSpec, TaskState

UNFINISHED = (TaskState.QUEUED, TaskState.RUNNING)
RESTORED = 60.0
"""Seconds after which a task that Redis has lost is probably back: recovery looks every minute."""


class Reader:
    """Reads tasks: from Redis while they live there, from PostgreSQL afterwards."""

    def __init__(
        self,
        directory: Directory,
        channel: CompletionChannel,
        waits: Waits,
        store: ObjectStore,
        history: History,
    ) -> None:
        """Args: channel: brings the news of finished tasks. waits: a drain cuts them short."""
        self._directory = directory
        self._channel = channel
        self._waits = waits
        self._store = store
        self._history = history

    async def get(self, caller: Caller, task_id: str, wait: float = 0.0) -> Task:
        """The task as it is now, or as it is when it finishes within `wait` seconds.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
        """
        target, task = await self._find(caller, task_id)
        if wait > 0 and target is not None and not task.state.terminal:
            task = await self._await(target, task, wait)
        return await self.with_result(task)

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """Cancels a task unless it has finished; returns it as it is then.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
            QueueUnavailableError: Redis has lost it, and `recovery.py` has yet to bring it back.
        """
        target, task = await self._find(caller, task_id)
        if target is None and not task.state.terminal:
            raise QueueUnavailableError(
                "the task is being restored", task_id=task_id, retry_after=RESTORED
            )
        if target is not None and not task.state.terminal:
            await target.queue.cancel(task_id)
            task = await target.queue.get(task_id) or task
        return await self.with_result(task)

    async def position(self, caller: Caller, task_id: str) -> Position:
        """Where a task stands in its queue now.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
        """
        target, task = await self._find(caller, task_id)
        if target is None or task.state is not TaskState.QUEUED:
            return Position(task.state)
        place = await target.queue.position(task_id, task.spec.priority)
        return Position(task.state, place, None if place is None else target.wait_for(place - 1))

    async def request(self, caller: Caller, task_id: str) -> TaskSpec:
        """What a task was asked for, with its input.

        Raises:
            TaskNotFoundError: there is no such task, or it is another tenant's.
            ConflictError: its input was not kept.
        """
        _, task = await self._find(caller, task_id)
        try:
            spec = await payloads.load_input(self._store, task.spec)
        except NotFoundError:
            spec = task.spec
        if spec.data is None:
            raise ConflictError("the input of this task was not kept", task_id=task_id)
        return spec

    async def _find(self, caller: Caller, task_id: str) -> tuple[Target | None, Task]:
        """The task and, while Redis has it, where it is; PostgreSQL has it afterwards.

        Its deployment may have left the registry before the task finished.
        """
        for target in self._directory.candidates(task_id):
            task = await target.queue.get(task_id)
            if task is not None:
                return target, _visible(caller, task, task_id)
        task = _visible(caller, await self._history.get(task_id), task_id)
        name = task.spec.deployment
        if not task.state.terminal and self._directory.named(name) is None:
            target = self._directory.former(name)
            if (live := await target.queue.get(task_id)) is not None:
                return target, live
        return None, task

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
        for name, group in by_deployment:
            target = self._directory.named(name) or self._directory.former(name)
            rows = await asyncio.gather(*(_readable(target.queue, task) for task in group))
            found |= {task.spec.task_id: task for task in rows if task is not None}
        return found

    async def with_result(self, task: Task) -> Task:
        """The task with its result, wherever that lies."""
        return await payloads.load_result(self._store, task) if task.result_ref else task

    async def sweep(self, task_ids: Sequence[str]) -> None:
        """Delivers what finished while no completion could arrive."""
        await asyncio.gather(*(self._sweep_one(task_id) for task_id in task_ids))

    async def _sweep_one(self, task_id: str) -> None:
        for target in self._directory.candidates(task_id):
            task = await target.queue.get(task_id)
            if task is not None and task.state.terminal:
                self._channel.deliver(news_of(task))

    # Last, because its name hides the type in what follows.
    async def list(self, caller: Caller, wanted: HistoryFilter) -> HistoryPage:
        """A page of history, newest first; unfinished tasks are shown as they are now."""
        page = await self._history.list(caller.scope, wanted)
        live = await self._live([task for task in page.tasks if not task.state.terminal])
        tasks = [live.get(task.spec.task_id, task) for task in page.tasks]
        if wanted.status in UNFINISHED:
            tasks = [task for task in tasks if task.state == wanted.status]
        return HistoryPage(tasks=tasks, next_cursor=page.next_cursor)


async def _readable(queue: TaskQueue, task: Task) -> Task | None:
    """The task as Redis has it; one that is spoiled there must not spoil the page that it is on."""
    try:
        return await queue.get(task.spec.task_id)
    except UNREADABLE:
        return None


def _visible(caller: Caller, task: Task | None, task_id: str) -> Task:
    if task is None or not caller.may_see(task):
        raise TaskNotFoundError(f"there is no task {task_id}", task_id=task_id)
    return task
