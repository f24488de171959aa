"""Cancelling tasks whose callers have gone."""

from redis.asyncio import Redis

from inferstack.queue import scripts
from inferstack.queue.connection import translated
from inferstack.queue.task_queue import prefix
from inferstack.task import TaskSpec


async def withdraw(redis: "Redis", spec: TaskSpec) -> None:
    """Cancels a task unless it has finished, and frees its idempotency key if it does.

    So a repeat by the same caller makes a new task, and does not find a cancelled one.

    Raises:
        QueueUnavailableError: Redis does not answer; the task may go on.
    """
    key = (spec.tenant, spec.idempotency_key) if spec.idempotency_key else ()
    with translated(spec.task_id):
        await scripts.run(redis, "cancel", prefix(spec.deployment), (spec.task_id, *key))
