"""Redis forgets a finished task after history has it, and not before."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from inferstack.config import load
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.outbox import Outbox
from inferstack.queue.task_queue import TaskQueue, prefix
from inferstack.queue.types import Completion, Submit
from inferstack.task import TaskSpec, new_task_id

pytestmark = pytest.mark.asyncio
NAME = "echo:1"


@pytest_asyncio.fixture
async def redis(clean_redis_url: str) -> AsyncIterator[Redis]:
    client = connect(clean_redis_url)
    yield client
    await client.aclose()


async def test_an_archived_task_is_deleted_after_its_time(redis: Redis) -> None:
    config = load()
    queue, outbox = TaskQueue(redis, NAME, config), Outbox(redis, [NAME], config)
    ids = [new_task_id(NAME) for _ in range(2500)]
    specs = [TaskSpec(task_id=i, model="echo", model_version=1, tenant="a") for i in ids]
    for start in range(0, len(ids), 250):
        await queue.enqueue([Submit(s, encode(s)) for s in specs[start : start + 250]])
    while claims := await queue.claim("w", 1000, 1000):
        await queue.complete(
            "w", [Completion(c.task_id, c.attempt, b"1", "", b"{}") for c in claims]
        )
    await outbox.archived(NAME, await outbox.read(1000), ids[:-1])
    await queue.tick()
    assert await redis.exists(*(f"{prefix(NAME)}t:{i}" for i in ids)) == len(ids)
    rows: Any = await redis.lrange(f"{prefix(NAME)}archived", 0, -1)
    for place, row in enumerate(rows):
        ids_of_row = row.decode().split(" ", 1)[1]
        await redis.lset(f"{prefix(NAME)}archived", place, f"1 {ids_of_row}")
    await queue.tick()
    left = [i for i in ids if await redis.exists(f"{prefix(NAME)}t:{i}")]
    assert left == [ids[-1]]
    assert await redis.llen(f"{prefix(NAME)}archived") == 0
