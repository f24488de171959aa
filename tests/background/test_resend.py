"""Tasks that only history knows come back, once, and end as any other does."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from inferstack.background import duties
from inferstack.config import Settings
from inferstack.errors import StorageUnavailableError
from inferstack.queue.codec import encode
from inferstack.queue.connection import Redis
from inferstack.queue.outbox import Outbox
from inferstack.queue.task_queue import TaskQueue, prefix
from inferstack.queue.types import Completion, Failure, Retry, Submit
from inferstack.recorder.recorder import Recorder
from inferstack.storage.database import Database
from inferstack.storage.history import History
from inferstack.storage.unfinished import Unfinished
from inferstack.task import Execution, Priority, Task, TaskError, TaskState
from tests.recorder.work import NAME, Work
from tests.storage.samples import completed, queued

RUN = encode(Execution("w"))


@pytest.fixture
def work(redis: Redis, settings: Settings) -> Work:
    return Work(redis, settings)


@pytest.fixture
def recorder(redis: Redis, settings: Settings, history: History) -> Recorder:
    return Recorder(Outbox(redis, [NAME], settings), history)


def lost(**values: object) -> Task:
    """A task in history whose Redis is gone, in the middle of its second attempt."""
    values = {"version": 4, "state": TaskState.RUNNING, "attempts": 2} | values
    return msgspec.structs.replace(queued(), **values)


async def archive(recorder: Recorder) -> None:
    while await recorder.step(block_ms=1):
        pass


async def test_what_redis_lost_is_served_after_all_under_its_own_id(
    settings: Settings, history: History, work: Work, recorder: Recorder
) -> None:
    tasks = [lost() for _ in range(3)]
    await history.upsert(tasks)
    assert await duties.resend(settings) == 3
    await archive(recorder)
    assert sorted(await work.finish()) == sorted(task.spec.task_id for task in tasks)
    await archive(recorder)
    for task in tasks:
        found = await history.get(task.spec.task_id)
        assert found is not None
        assert found.state is TaskState.COMPLETED
        assert found.spec.data is not None
    assert await duties.resend(settings) == 0


async def test_an_attempt_of_before_the_loss_is_refused(
    settings: Settings,
    redis: Redis,
    work: Work,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The replica slept through everything: its attempt must not pass for that of another."""
    monkeypatch.setattr("inferstack.lifecycle.recovery.AGE", -1.0)
    (task_id,) = await work.submit(1)
    await archive(recorder)
    (before,) = await work.queue.claim("asleep", 1)
    await redis.flushdb()
    assert await duties.resend(settings) == 1
    (now,) = await work.queue.claim("w", 1)
    assert now.task_id == before.task_id == task_id
    assert await work.queue.extend("asleep", [(task_id, before.attempt)]) == {task_id}
    late = Completion(task_id, before.attempt, b'"late"', "", RUN)
    error = encode(TaskError("engine-error", "late"))
    failed = Failure(task_id, before.attempt, Retry.FINAL, 0.0, error, RUN)
    for worker in ("asleep", "w"):
        assert await work.queue.complete(worker, [late]) == ["stale"]
        assert await work.queue.fail(worker, [failed]) == ["stale"]
    assert await work.queue.complete("w", [late._replace(attempt=now.attempt)]) == ["ok"]
    found = await work.queue.get(task_id)
    assert found is not None
    assert (found.state, found.attempts) == (TaskState.COMPLETED, 1)


async def test_many_pages_of_two_deployments(
    settings: Settings, history: History, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.lifecycle.recovery.PAGE", 2)
    await history.upsert([*(queued() for _ in range(5)), *(queued(version=2) for _ in range(4))])
    assert await duties.resend(settings) == 9
    for name, count in (("echo:1", 5), ("echo:2", 4)):
        assert len(await TaskQueue(redis, name, settings).claim("w", 100)) == count


async def test_what_redis_has_or_what_has_ended_stays(
    settings: Settings, history: History, work: Work, recorder: Recorder
) -> None:
    ids = await work.submit(2)
    await archive(recorder)
    finished = completed()
    await history.upsert([finished])
    assert await duties.resend(settings) == 0
    assert {claim.task_id for claim in await work.queue.claim("w", 10)} == set(ids)


async def test_a_task_that_was_made_just_now_is_left_to_the_recorder(
    settings: Settings, history: History
) -> None:
    await history.upsert([msgspec.structs.replace(queued(), created_at=time.time())])
    assert await duties.resend(settings) == 0


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_the_clock_of_this_process_decides_nothing(
    settings: Settings,
    history: History,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    jump: float,
) -> None:
    now = time.time()
    task = queued()
    spec = msgspec.structs.replace(task.spec, timeout=600.0)
    await history.upsert([msgspec.structs.replace(task, spec=spec, created_at=now - 120)])
    monkeypatch.setattr(time, "time", lambda: now + jump)
    assert await duties.resend(settings) == 1
    deadline = await redis.zscore(f"{prefix(NAME)}deadline", spec.task_id)
    assert deadline is not None
    assert deadline / 1000 == pytest.approx(now + 480, abs=30)


async def test_a_second_loss_grants_no_time_again(
    settings: Settings, history: History, redis: Redis, recorder: Recorder
) -> None:
    now = time.time()
    task = queued(timeout=600.0)
    await history.upsert([msgspec.structs.replace(task, created_at=now - 120)])
    for _ in range(2):
        await redis.flushdb()
        assert await duties.resend(settings) == 1
        await archive(recorder)
    deadline = await redis.zscore(f"{prefix(NAME)}deadline", task.spec.task_id)
    assert deadline is not None
    assert deadline / 1000 == pytest.approx(now + 480, abs=30)


async def test_a_task_that_cannot_be_read_does_not_keep_others_lost(
    settings: Settings, history: History, redis: Redis, work: Work
) -> None:
    broken = queued()
    await history.upsert([broken, queued()])
    await redis.hset(f"{prefix(NAME)}t:{broken.spec.task_id}", mapping={"s": b"?", "spec": b"?"})
    assert await duties.resend(settings) == 1


async def test_two_sweeps_at_once_submit_it_once(
    settings: Settings, history: History, work: Work
) -> None:
    await history.upsert([queued() for _ in range(20)])
    counts = await asyncio.gather(*(duties.resend(settings) for _ in range(4)))
    assert sum(counts) == 20
    assert len(await work.finish()) == 20


async def test_one_whose_deadline_has_passed_expires(
    settings: Settings, history: History, work: Work, recorder: Recorder
) -> None:
    task = queued(timeout=30.0)
    await history.upsert([task])
    assert await duties.resend(settings) == 1
    deadline = time.monotonic() + 10
    while (found := await work.queue.get(task.spec.task_id)) and not found.state.terminal:
        assert time.monotonic() < deadline
        await work.queue.tick()
    await archive(recorder)
    archived = await history.get(task.spec.task_id)
    assert archived is not None
    assert archived.state is TaskState.EXPIRED
    assert archived.spec.timeout == 30.0


async def test_a_key_that_was_used_again_since_does_not_keep_it_lost(
    settings: Settings, history: History, work: Work
) -> None:
    (other,) = await work.submit(1, idempotency_key="k")
    task = queued(idempotency_key="k")
    await history.upsert([task])
    assert await duties.resend(settings) == 1
    assert {claim.task_id for claim in await work.queue.claim("w", 10)} == {
        other,
        task.spec.task_id,
    }


async def test_a_full_queue_leaves_it_for_the_next_sweep(
    settings: Settings, history: History, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    task = queued()
    await history.upsert([task])
    await work.submit(1)
    full = settings.model_copy(update={"max_queue": 1})
    assert await duties.resend(full) == 0
    assert "1 of echo:1, priority normal, stay lost for now: full" in caplog.text
    assert await duties.resend(settings) == 1


@pytest.mark.parametrize(
    ("limit", "which"),
    [("max_queue", "priority normal"), ("max_tenant_queue", "tenant acme")],
)
async def test_after_a_refusal_the_rest_of_the_same_kind_is_not_tried(
    settings: Settings,
    history: History,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: str,
    which: str,
) -> None:
    await history.upsert([queued() for _ in range(10)])
    await asyncio.sleep(0.002)  # ids are in the order of milliseconds, and so is a sweep
    others = [queued(version=2), queued(tenant="other", priority=Priority.HIGH)]
    await history.upsert(others)
    tried: list[str] = []
    enqueue = TaskQueue.enqueue

    async def counted(queue: TaskQueue, submits: Sequence[Submit], **options: Any) -> Any:
        tried.extend(submit.spec.task_id for submit in submits)
        return await enqueue(queue, submits, **options)

    monkeypatch.setattr(TaskQueue, "enqueue", counted)
    few = settings.model_copy(update={limit: 4})
    assert await duties.resend(few) == (5 if limit == "max_queue" else 6)
    assert len(tried) == 4 + 1 + len(others)
    stays = [r.message for r in caplog.records if "stay lost" in r.message]
    assert f"6 of echo:1, {which}, stay lost" in " ".join(stays)


async def test_a_sweep_ends_in_time_and_the_next_one_goes_on(
    settings: Settings, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.lifecycle.recovery.PAGE", 3)
    await history.upsert([queued() for _ in range(6)])
    with monkeypatch.context() as patch:
        patch.setattr("inferstack.lifecycle.recovery.LONGEST", 0.0)
        assert await duties.resend(settings) == 0
    assert await duties.resend(settings) == 6


async def test_postgresql_takes_the_lock_from_a_sweep_that_stands_still(
    database: Database, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the recorder waits for the row, and every queue fills its outbox meanwhile."""
    monkeypatch.setattr("inferstack.storage.database.HOLD", 1)
    task = queued()
    await history.upsert([task])

    async def stand_still() -> None:
        async with Unfinished(database).held(task.spec.task_id) as still:
            assert still is not None
            async with asyncio.timeout(30):
                await history.upsert([msgspec.structs.replace(task, version=task.version + 1)])

    with pytest.raises(StorageUnavailableError):
        await stand_still()
    found = await history.get(task.spec.task_id)
    assert found is not None
    assert found.version == task.version + 1
