"""Forgetting unfinished tasks that history has finished, whatever state they are in."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from inferstack.config import load
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.settle import settle, unfinished
from inferstack.queue.task_queue import prefix
from inferstack.queue.types import Completion, Failure, Retry
from inferstack.task import Execution, TaskError
from tests.recorder.work import NAME, Work

if TYPE_CHECKING:
    from redis.asyncio import Redis

RUN = encode(Execution("w"))


@pytest.fixture
async def redis(clean_redis_url: str) -> "AsyncIterator[Redis]":
    client = connect(clean_redis_url)
    yield client
    await client.aclose()


async def test_every_unfinished_task_goes_and_no_finished_one(redis: "Redis") -> None:
    work = Work(redis, load())
    ids = await work.submit(6)
    completed, failed, running, *_ = claims = await work.queue.claim("w", 3)
    await work.queue.complete("w", [Completion(completed.task_id, 1, b"1", "", RUN)])
    error = encode(TaskError("engine-error", "boom", retryable=True))
    await work.queue.fail("w", [Failure(failed.task_id, 1, Retry.CHARGED, 60.0, error, RUN)])
    assert await redis.zcard(f"{prefix(NAME)}delay") == 1
    waiting = set(ids) - {claim.task_id for claim in claims}
    left = waiting | {failed.task_id, running.task_id}
    assert await unfinished(redis, NAME) == left

    outbox = int(await redis.hget(f"{prefix(NAME)}meta", "outbox") or 0)
    for _ in range(2):
        await settle(redis, NAME, ids)
        assert await unfinished(redis, NAME) == set()
        there = [i for i in ids if await redis.exists(f"{prefix(NAME)}t:{i}")]
        assert there == [completed.task_id]
        for index in ("w:normal", "delay", "lease", "deadline"):
            assert await redis.zcard(f"{prefix(NAME)}{index}") == 0, index
        for counts in ("tenants", "tags"):
            assert await redis.hlen(f"{prefix(NAME)}{counts}") == 0, counts
        now = int(await redis.hget(f"{prefix(NAME)}meta", "outbox") or 0)
        assert now == outbox + len(left)
    assert await work.queue.complete("w", [Completion(running.task_id, 1, b"1", "", RUN)]) == [
        "stale"
    ]
