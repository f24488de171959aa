"""The note of what computes now must arrive, though nobody answers it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inferstack.config import load
from inferstack.deployment import Deployment, ReplicaStatus
from inferstack.errors import QueueUnavailableError
from inferstack.lifecycle.replica import Lease, ReplicaSession
from inferstack.queue.connection import Redis, connect
from inferstack.storage.objects import ObjectStore
from inferstack.task import TaskSpec
from tests.faults.cluster import until
from tests.faults.failover import Pair

pytestmark = pytest.mark.asyncio

WORKER = "host:1:a"
KEY = f"is:{{echo:1}}:run:{WORKER}"
SPEC = TaskSpec(task_id="t", model="echo", model_version=1, tenant="acme", data={})


class Writer:
    """A replica and what Redis holds of its note."""

    def __init__(self, url: str, folder: Path) -> None:
        settings = load(redis_url=url, inferstack_home=folder)
        self.redis: Redis = connect(url)
        store = ObjectStore.from_settings(settings)
        self.replica = ReplicaSession(
            self.redis, Deployment(model="echo", version=1), store, WORKER, settings
        )

    async def begin(self, attempt: int) -> None:
        await self.replica.begin([Lease("t", attempt, 0, SPEC)])

    async def beat(self) -> None:
        await self.replica.heartbeat(ReplicaStatus(worker=WORKER))

    async def arrived(self, attempt: int) -> bool:
        return bool(await self.redis.get(KEY) == b"t/%d" % attempt)

    async def close(self) -> None:
        await self.replica.leave()
        await self.redis.aclose()


@pytest.fixture
async def writer(clean_redis_url: str, tmp_path: Path) -> AsyncIterator[Writer]:
    built = Writer(clean_redis_url, tmp_path)
    yield built
    await built.redis.config_set("maxmemory", 0)
    await built.close()


async def test_a_note_is_taken_when_redis_is_out_of_memory(writer: Writer) -> None:
    await writer.redis.config_set("maxmemory", 1)
    await writer.begin(1)
    await until(lambda: writer.arrived(1))
    assert await writer.redis.exists(KEY)


async def test_a_note_that_is_gone_is_written_again(writer: Writer) -> None:
    await writer.begin(1)
    await until(lambda: writer.arrived(1))
    await writer.redis.delete(KEY)
    assert not await writer.redis.exists(KEY)
    await writer.beat()
    await until(lambda: writer.arrived(1))
    assert await writer.redis.exists(KEY)


async def test_after_a_failover_notes_go_to_the_new_server(tmp_path: Path) -> None:
    async with Pair() as servers:
        writer = Writer(servers.url, tmp_path)
        await writer.begin(1)
        await until(lambda: writer.arrived(1))
        await asyncio.to_thread(servers.demote)
        servers.promote()
        with pytest.raises(QueueUnavailableError):
            await writer.beat()
        await writer.begin(2)
        await writer.beat()
        await until(lambda: writer.arrived(2))
        await writer.begin(3)
        await until(lambda: writer.arrived(3))
        await writer.close()
