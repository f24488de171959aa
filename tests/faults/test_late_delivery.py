"""A request that its sender has given up may still arrive: Redis or the network held it back."""

import pytest

from inferstack.config import load
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Completion, Enqueued, Submit
from inferstack.task import Execution, TaskSpec, TaskState, new_task_id
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


async def end_all(queue: TaskQueue) -> set[str]:
    """Completes whatever waits; returns what did."""
    claims = await queue.claim("w", 10)
    finished = [Completion(c.task_id, c.attempt, b'{"n":1}', "", RUN) for c in claims]
    assert await queue.complete(finished) == ["ok"] * len(claims)
    return {claim.task_id for claim in claims}
