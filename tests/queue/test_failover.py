"""A failover makes the server that a client is connected to a replica; its name leads elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import pytest

from inferstack.config import load
from inferstack.errors import QueueUnavailableError
from inferstack.queue.bell import Bell
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.outbox import Outbox
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Enqueued, Submit
from inferstack.task import TaskSpec
from tests.faults.cluster import until
from tests.faults.failover import Pair

pytestmark = pytest.mark.asyncio


@pytest.fixture
async def servers() -> AsyncIterator[Pair]:
    async with Pair() as running:
        yield running


async def test_a_write_to_a_demoted_server_is_unavailable_and_the_next_finds_the_new_one(
    servers: Pair,
) -> None:
    client = connect(servers.url)
    try:
        queue = TaskQueue(client, "echo:1", load(redis_url=servers.url))
        await asyncio.gather(*(queue.enqueue([submit()]) for _ in range(8)))
        await asyncio.to_thread(servers.demote)
        with pytest.raises(QueueUnavailableError) as refused:
            await queue.enqueue([submit()])
        assert refused.value.retry_after
        servers.promote()
        # All eight connections, not only the one that was refused.
        answers = await asyncio.gather(*(queue.enqueue([submit()]) for _ in range(8)))
        assert {answer.status for (answer,) in answers} == {Enqueued.OK}
    finally:
        await client.aclose()


async def test_what_blocks_during_a_failover_is_unavailable_and_goes_on_at_the_new_one(
    servers: Pair,
) -> None:
    client = connect(servers.url)
    bell = Bell(servers.url, "echo:1", 5.0)
    outbox = Outbox(client, ["echo:1"], load(redis_url=servers.url))
    try:
        for block in (lambda: bell.wait(5.0), lambda: outbox.read(10, block_ms=5000)):
            await interrupted(servers, block)
        await TaskQueue(client, "echo:1", load(redis_url=servers.url)).enqueue([submit()])
        assert await bell.wait(5.0)
        assert await outbox.read(10, block_ms=5000)
    finally:
        await bell.close()
        await client.aclose()


async def interrupted(servers: Pair, block: Callable[[], Awaitable[object]]) -> None:
    waiting = asyncio.ensure_future(block())
    await until(lambda: asyncio.to_thread(servers.blocked))
    await asyncio.to_thread(servers.demote)
    with pytest.raises(QueueUnavailableError):
        await waiting
    servers.promote()


def submit() -> Submit:
    spec = TaskSpec(task_id=str(uuid4()), model="echo", model_version=1, tenant="t", data={})
    return Submit(spec, encode(spec))
