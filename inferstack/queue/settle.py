"""What a restored Redis says of unfinished tasks, and forgetting those that finished since."""

from collections.abc import Sequence

from redis.asyncio import Redis

from inferstack.queue import scripts
from inferstack.queue.arguments import slices
from inferstack.queue.codec import pack
from inferstack.queue.connection import translated
from inferstack.queue.task_queue import prefix

INDEXES = ("w:high", "w:normal", "w:low", "delay", "lease")
"""Each unfinished task is in exactly one of them."""


async def unfinished(redis: "Redis", deployment: str) -> set[str]:
    """The ids of all tasks of a deployment that wait or run."""
    with translated():
        pipe = redis.pipeline(transaction=False)
        for index in INDEXES:
            pipe.zrange(prefix(deployment) + index, 0, -1)
        return {task_id.decode() for members in await pipe.execute() for task_id in members}


async def settle(redis: "Redis", deployment: str, task_ids: Sequence[str]) -> None:
    """Forgets unfinished tasks whose end history holds."""
    with translated():
        for some in slices(task_ids):
            await scripts.run(redis, "settle", prefix(deployment), (pack(some),))
