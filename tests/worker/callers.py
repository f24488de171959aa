"""What callers of one deployment do, straight through its queue."""

import asyncio
from typing import Any

from redis.asyncio import Redis

from inferstack.config import Settings
from inferstack.queue.codec import encode
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Submit
from inferstack.task import Task, TaskSpec, TaskState, new_task_id

PATIENCE = 60.0


class Callers:
    """Everybody who uses a deployment."""

    def __init__(self, redis: Redis, settings: Settings, deployment: str) -> None:
        self._deployment = deployment
        self._queue = TaskQueue(redis, deployment, settings)

    async def submit(self, data: dict[str, Any]) -> str:
        """Returns the id of the new task."""
        model, _, version = self._deployment.partition(":")
        spec = TaskSpec(
            task_id=new_task_id(self._deployment),
            model=model,
            model_version=int(version),
            tenant="t",
            data=data,
        )
        await self._queue.enqueue([Submit(spec, encode(spec))])
        return spec.task_id

    async def finished(self, task_id: str) -> Task:
        """A task, once it is in a terminal state."""
        return await self.seen(task_id, *(state for state in TaskState if state.terminal))

    async def seen(self, task_id: str, *states: TaskState) -> Task:
        """A task, once it is in one of some states."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self._queue.get(task_id)
                if found is not None and found.state in states:
                    return found
                await asyncio.sleep(0.02)
