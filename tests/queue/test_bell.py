"""The bell wakes replicas, and a short wait ends when it should."""

import asyncio
import time

import pytest

from inferstack.queue.bell import Bell
from inferstack.queue.connection import connect

pytestmark = pytest.mark.asyncio


async def test_a_short_wait_is_not_rounded_up_by_redis(clean_redis_url: str) -> None:
    bell = Bell(clean_redis_url, "echo:1", 1.0)
    try:
        await bell.wait(0.0)
        started = time.monotonic()
        rings = [await bell.wait(0.005) for _ in range(10)]
        assert not any(rings)
        assert time.monotonic() - started < 0.5
    finally:
        await bell.close()


@pytest.mark.parametrize("seconds", [0.1, 5.0])
async def test_a_ring_ends_a_wait_at_once(clean_redis_url: str, seconds: float) -> None:
    redis = connect(clean_redis_url)
    bell = Bell(clean_redis_url, "echo:1", 5.0)
    try:
        waiting = asyncio.create_task(bell.wait(seconds))
        await redis.rpush("is:{echo:1}:bell", "1")
        assert await waiting
    finally:
        await bell.close()
        await redis.aclose()
