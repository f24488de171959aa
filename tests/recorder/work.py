"""Submits and finishes real tasks in a real queue, as an API process and a replica would."""

from typing import TYPE_CHECKING, Any

import msgspec

from inferstack.config import Settings
from inferstack.queue.codec import encode
from inferstack.queue.task_queue import TaskQueue, prefix
from inferstack.queue.types import Completion, Enqueued, Submit
from inferstack.task import Execution, TaskSpec, new_task_id

if TYPE_CHECKING:
    from redis.asyncio import Redis

NAME = "echo:1"


class Work:
    """One deployment's queue, used from both sides."""

    def __init__(self, redis: "Redis", settings: Settings) -> None:
        """Args: redis: an emptied Redis."""
        self.redis = redis
        self.queue = TaskQueue(redis, NAME, settings)

    async def submit(self, count: int, **values: Any) -> list[str]:
        """Enqueues tasks; returns their ids."""
        specs = [_spec({"data": {"n": number}} | values) for number in range(count)]
        submits = [Submit(spec, encode(spec)) for spec in specs]
        for start in range(0, count, 100):
            done = await self.queue.enqueue(submits[start : start + 100])
            assert {accepted.status for accepted in done} == {Enqueued.OK}
        return [spec.task_id for spec in specs]

    async def finish(self, result: bytes = b'{"ok":true}') -> list[str]:
        """Claims and completes all that waits; returns the ids."""
        finished: list[str] = []
        execution = msgspec.json.encode(Execution("host:1:a", 0.5, 1.5, 32))
        while claims := await self.queue.claim("host:1:a", 100):
            await self.queue.complete(
                "host:1:a",
                [Completion(c.task_id, c.attempt, result, "", execution) for c in claims],
            )
            finished += [claim.task_id for claim in claims]
        return finished

    async def saved(self) -> dict[Any, Any]:
        """All that Redis holds, for `went_back`."""
        return {key: await self.redis.dump(key) for key in await self.redis.keys()}

    async def went_back(self, saved: dict[Any, Any]) -> None:
        """Redis is as it was: a replica took over that had not received what came since."""
        await self.redis.flushdb()
        for key, value in saved.items():
            await self.redis.restore(key, 0, value)

    async def forgettable(self, task_id: str) -> bool:
        """Whether Redis will delete the task after its time."""
        batches = await self.redis.lrange(f"{prefix(NAME)}archived", 0, -1)
        return any(task_id.encode() in batch.split() for batch in batches)

    async def left(self) -> int:
        """Stream entries that are not acknowledged."""
        return int(await self.redis.xlen(f"{prefix(NAME)}out"))


def _spec(values: dict[str, Any]) -> TaskSpec:
    return TaskSpec(
        task_id=new_task_id(NAME), model="echo", model_version=1, tenant="acme", **values
    )
