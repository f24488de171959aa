"""A request that its sender has given up may still arrive: Redis or the network held it back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from inferstack.config import load
from inferstack.errors import QueueUnavailableError
from inferstack.queue.codec import encode
from inferstack.queue.connection import Redis, connect
from inferstack.queue.outbox import Outbox
from inferstack.queue.scripts import Execute
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Completion, Enqueued, Submit
from inferstack.task import Execution, TaskSpec, TaskState, new_task_id
from tests.faults.cluster import until
from tests.faults.tally import Tally, count

NAME = "echo:1"
RUN = encode(Execution("w"))


@pytest.mark.parametrize("done", [False, True])
async def test_a_submit_that_arrives_after_its_own_repeat_changes_nothing(
    clean_redis_url: str, done: bool
) -> None:
    redis = connect(clean_redis_url)
    queue = TaskQueue(redis, NAME, load(redis_url=clean_redis_url))
    ids = [new_task_id(NAME) for _ in range(3)]
    specs = [TaskSpec(task_id=i, model="echo", model_version=1, tenant="t") for i in ids]
    submits = [Submit(spec, encode(spec)) for spec in specs]
    await queue.enqueue(submits)
    ended = await end_all(queue) if done else set()
    late = await queue.enqueue(submits)
    assert [(a.status, a.task_id) for a in late] == [(Enqueued.DUPLICATE, i) for i in ids]
    tenants = await redis.hgetall(f"is:{{{NAME}}}:tenants")
    assert tenants == ({} if done else {b"t": b"3"})
    for task in await queue.load(ids):
        assert task is not None
        assert task.state is (TaskState.COMPLETED if done else TaskState.QUEUED)
        assert task.version == (3 if done else 1)
    # Each of them ends once, whenever that is.
    ended ^= await end_all(queue)
    assert ended == set(ids)
    assert not await redis.hgetall(f"is:{{{NAME}}}:tenants")
    count("queue", Tally(faults=1, accepted=len(ids)))
    await redis.aclose()


async def test_a_submit_that_arrives_when_its_repeat_is_forgotten_is_refused(
    clean_redis_url: str,
) -> None:
    redis = connect(clean_redis_url)
    settings = load(redis_url=clean_redis_url).model_copy(update={"archived_ttl": 0.0})
    queue, outbox = TaskQueue(redis, NAME, settings, valid=1.0), Outbox(redis, [NAME], settings)
    spec = TaskSpec(task_id=new_task_id(NAME), model="echo", model_version=1, tenant="t")
    sent: list[tuple[Any, ...]] = []
    with _overheard(redis, sent):
        (answer,) = await queue.enqueue([Submit(spec, encode(spec))])
    assert answer.status is Enqueued.OK
    assert await end_all(queue) == {spec.task_id}
    await outbox.archived(NAME, await outbox.read(100, 1), [spec.task_id])
    assert await queue.get(spec.task_id) is None
    *_, held_up = sent
    before = held_up[4]
    await until(lambda: _passed(redis, before))
    execute: Execute = redis.execute_command
    assert (await execute(*held_up))[1:] == [b"late"]
    assert await queue.get(spec.task_id) is None
    assert await end_all(queue) == set()
    count("queue", Tally(faults=1, accepted=1))
    await redis.aclose()


async def test_a_clock_of_redis_that_jumps_refuses_nothing(clean_redis_url: str) -> None:
    redis = connect(clean_redis_url)
    queue = TaskQueue(redis, NAME, load(redis_url=clean_redis_url))
    for hours in (-1, 1):
        seconds, _ = await redis.time()
        queue.clock.told((seconds + hours * 3600) * 1000)
        spec = TaskSpec(task_id=new_task_id(NAME), model="echo", model_version=1, tenant="t")
        (answer,) = await queue.enqueue([Submit(spec, encode(spec))])
        assert answer.status is Enqueued.OK
        assert abs(queue.clock.at(time.monotonic()) / 1000 - seconds) < 60
    await redis.aclose()


async def test_a_machine_that_stood_still_sends_no_second_one(clean_redis_url: str) -> None:
    """With its monotonic clock, as a virtual machine may: Redis is further than it thinks."""
    redis = connect(clean_redis_url)
    queue = TaskQueue(redis, NAME, load(redis_url=clean_redis_url))
    spec = TaskSpec(task_id=new_task_id(NAME), model="echo", model_version=1, tenant="t")
    seconds, _ = await redis.time()
    queue.clock.told((seconds - 120) * 1000)
    with pytest.raises(QueueUnavailableError, match="too late"):
        await queue.enqueue([Submit(spec, encode(spec))], first_sent=time.monotonic())
    assert await queue.get(spec.task_id) is None
    await redis.aclose()


@contextmanager
def _overheard(redis: Redis, sent: list[tuple[Any, ...]]) -> Iterator[None]:
    execute: Execute = redis.execute_command

    async def listen(*args: Any, **options: Any) -> Any:
        sent.append(args)
        return await execute(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis, "execute_command", listen)
        yield


async def _passed(redis: Redis, moment_ms: int) -> bool:
    seconds, micros = await redis.time()
    return bool(seconds * 1000 + micros / 1000 > moment_ms + 1)


async def end_all(queue: TaskQueue) -> set[str]:
    """Completes whatever waits; returns what did."""
    claims = await queue.claim("w", 10)
    finished = [Completion(c.task_id, c.attempt, b'{"n":1}', "", RUN) for c in claims]
    assert await queue.complete("w", finished) == ["ok"] * len(claims)
    return {claim.task_id for claim in claims}
