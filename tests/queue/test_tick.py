"""What time moves, when very much of it is due at once."""

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from inferstack.config import load
from inferstack.queue.codec import encode
from inferstack.queue.connection import clock_ms, connect
from inferstack.queue.task_queue import TICK_LIMIT, TaskQueue, prefix
from inferstack.queue.types import Submit
from inferstack.task import TaskSpec, new_task_id

pytestmark = pytest.mark.asyncio
NAME = "echo:1"
COUNT = 2 * TICK_LIMIT + 200


@pytest_asyncio.fixture
async def redis(clean_redis_url: str) -> AsyncIterator[Redis]:
    client = connect(clean_redis_url)
    yield client
    await client.aclose()


async def leased(queue: TaskQueue) -> list[tuple[str, int]]:
    """Very many tasks, all held by one replica."""
    for _ in range(COUNT // 100):
        ids = [new_task_id(NAME) for _ in range(100)]
        specs = [
            TaskSpec(task_id=key, model="echo", model_version=1, tenant="t", data={}) for key in ids
        ]
        await queue.enqueue([Submit(spec, encode(spec)) for spec in specs])
    held: list[tuple[str, int]] = []
    while claims := await queue.claim("w", 1000, 1000):
        held += [(claim.task_id, claim.attempt) for claim in claims]
    assert len(held) == COUNT
    return held


async def test_after_a_time_without_ticks_no_lease_is_taken_back_before_it_could_be_prolonged(
    redis: Redis,
) -> None:
    queue = TaskQueue(redis, NAME, load(max_queue=10_000, max_tenant_queue=10_000))
    held = await leased(queue)
    past = dict.fromkeys((task_id for task_id, _ in held), 1)
    long_ago = int(time.time() * 1000) - 10_000

    await redis.zadd(f"{prefix(NAME)}lease", past)
    await redis.hset(f"{prefix(NAME)}meta", "ticked", long_ago)
    for _ in range(4):
        assert await queue.tick() == (0, 0, 0, 0)
    assert await queue.extend("w", held) == set()

    await redis.zadd(f"{prefix(NAME)}lease", past)
    await redis.hset(f"{prefix(NAME)}meta", "spared", long_ago)
    reaped = [(await queue.tick())[2] for _ in range(4)]
    assert reaped == [TICK_LIMIT, TICK_LIMIT, 200, 0]
    assert len(await queue.claim("other", 1000, 1000)) == 1000


async def test_a_jump_of_the_clock_that_ends_no_lease_at_once_takes_none_back_either(
    redis: Redis,
) -> None:
    """Leases that end a little later, before their replicas prolong them as always."""
    queue = TaskQueue(redis, NAME, load(lease=60.0, max_queue=10_000, max_tenant_queue=10_000))
    held = await leased(queue)
    await queue.tick()
    now = await clock_ms(redis)
    await redis.hset(f"{prefix(NAME)}meta", "ticked", now - 50_000)
    assert await queue.tick() == (0, 0, 0, 0)
    spared = int(await redis.hget(f"{prefix(NAME)}meta", "spared") or 0)
    assert 20_000 < spared - now < 24_000

    await redis.zadd(f"{prefix(NAME)}lease", dict.fromkeys((key for key, _ in held), 1))
    assert await queue.tick() == (0, 0, 0, 0)
    assert await queue.extend("w", held) == set()


async def test_a_clock_that_stepped_back_holds_up_no_lease(redis: Redis) -> None:
    queue = TaskQueue(redis, NAME, load(max_queue=10_000, max_tenant_queue=10_000))
    held = await leased(queue)
    await redis.hset(f"{prefix(NAME)}meta", "spared", int(time.time() * 1000) + 3_600_000)
    await redis.zadd(f"{prefix(NAME)}lease", dict.fromkeys((key for key, _ in held), 1))
    assert (await queue.tick())[2] == TICK_LIMIT
