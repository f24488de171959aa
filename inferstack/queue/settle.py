"""Where Redis and history may disagree: what Redis has, and forgetting what it need not have."""

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


async def known(redis: "Redis", deployment: str, task_ids: Sequence[str]) -> set[str]:
    """Which of these tasks Redis has, in whatever state; reads none of them."""
    with translated():
        pipe = redis.pipeline(transaction=False)
        for task_id in task_ids:
            pipe.exists(f"{prefix(deployment)}t:{task_id}")
        there = await pipe.execute()
    return {task_id for task_id, found in zip(task_ids, there, strict=True) if found}


async def settle(redis: "Redis", deployment: str, task_ids: Sequence[str]) -> None:
    """Forgets unfinished tasks whose end history holds."""
    await _forget(redis, "settle", deployment, task_ids)


async def purge(redis: "Redis", deployment: str, task_ids: Sequence[str]) -> None:
    """Forgets finished tasks at once, so that no late reader or recorder finds them."""
    await _forget(redis, "purge", deployment, task_ids)


async def _forget(redis: "Redis", script: str, deployment: str, task_ids: Sequence[str]) -> None:
    """Those that are gone already do no harm."""
    with translated():
        for some in slices(task_ids):
            await scripts.run(redis, script, prefix(deployment), (pack(some),))
