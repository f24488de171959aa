"""Forgetting finished tasks before their time."""

from collections.abc import Sequence

from redis.asyncio import Redis

from inferstack.queue import scripts
from inferstack.queue.arguments import slices
from inferstack.queue.codec import pack
from inferstack.queue.connection import translated
from inferstack.queue.task_queue import prefix


async def purge(redis: "Redis", deployment: str, task_ids: Sequence[str]) -> None:
    """Makes Redis forget archived tasks at once, so that no late reader or recorder finds them.

    Args:
        redis: a client from `connection.connect`.
        deployment: `model:version`.
        task_ids: finished tasks; those that are gone already do no harm.
    """
    with translated():
        for some in slices(task_ids):
            await scripts.run(redis, "purge", prefix(deployment), (pack(some),))
