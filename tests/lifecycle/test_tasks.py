"""What callers can rely on, on a real Redis, PostgreSQL and object store."""

import asyncio
import threading
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from inferstack.concurrency import end
from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import (
    CircuitOpenError,
    DeadlineUnreachableError,
    DeploymentUnavailableError,
    IdempotencyMismatchError,
    InvalidInputError,
    InvalidRequestError,
    ModelNotFoundError,
    QueueFullError,
    QueueUnavailableError,
    TaskNotFoundError,
    TenantQueueFullError,
)
from inferstack.lifecycle import recovery
from inferstack.lifecycle.replica import ReplicaSession
from inferstack.lifecycle.types import MAX_METADATA, Caller, Receipt, Submission
from inferstack.lifecycle.waits import Departure
from inferstack.queue.codec import UNREADABLE, decode_record
from inferstack.queue.key_routes import UNUSED
from inferstack.queue.registry import Registry
from inferstack.queue.task_queue import prefix
from inferstack.queue.withdraw import withdraw
from inferstack.storage.history import HistoryFilter
from inferstack.storage.objects import ObjectStore
from inferstack.task import Execution, Priority, Task, TaskError, TaskState
from tests.lifecycle.conftest import ANN, BOB, ECHO, ROOT, House
from tests.recorder.work import Work

pytestmark = pytest.mark.asyncio

LARGE = {"text": "x" * 5000}


def hello(**fields: Any) -> Submission:
    return Submission(**({"data": {"text": "hello"}} | fields))


async def test_a_task_is_queued_then_done_and_stays_readable_from_history(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    assert (receipt.state, receipt.position) == (TaskState.QUEUED, 1)
    assert (await house.tasks.get(ANN, receipt.task_id)).state is TaskState.QUEUED
    assert await house.work() == [receipt.task_id]
    await house.archive()
    live = await house.tasks.get(ANN, receipt.task_id)
    await house.redis.flushall()
    archived = await house.tasks.get(ANN, receipt.task_id)
    for task in (live, archived):
        assert task.state is TaskState.COMPLETED
        assert bytes(task.result or b"") == b'"done"'
        assert (task.attempts, task.execution) == (1, Execution("host:1:a", 1.0, 2.0, 1))
    assert msgspec.json.encode(archived.spec) == msgspec.json.encode(live.spec)


async def test_a_waiting_submit_gets_the_finished_task(house: House) -> None:
    waiting = asyncio.create_task(house.tasks.run(ANN, hello(), 10.0))
    await house.replica.wait(5.0)
    await house.work(b"[1]")
    task = await waiting
    assert isinstance(task, Task)
    assert bytes(task.result or b"") == b"[1]"
    assert task.started_at is not None
    assert task.completed_at is not None
    assert task.created_at <= task.started_at <= task.completed_at


async def test_a_wait_that_ends_first_gives_a_receipt_and_the_task_lives_on(house: House) -> None:
    receipt = await house.tasks.run(ANN, hello(), 0.05)
    assert isinstance(receipt, Receipt)
    await house.work()
    assert (await house.tasks.get(ANN, receipt.task_id)).state is TaskState.COMPLETED


async def left(house: House, key: str | None = None) -> Task:
    """A task whose caller departed while it ran."""
    departure = Departure()
    waiting = asyncio.create_task(
        house.tasks.run(ANN, hello(), 60.0, idempotency_key=key, departure=departure)
    )
    async with asyncio.timeout(10):
        while not (leases := await house.replica.claim(1)):
            await asyncio.sleep(0.01)
    departure.happened()
    await asyncio.wait_for(waiting, 10)
    return await house.tasks.get(ANN, leases[0].task_id)


async def test_a_caller_that_departs_cancels_its_task(house: House) -> None:
    assert (await left(house)).state is TaskState.CANCELLED


async def test_a_caller_that_departs_before_its_task_is_durable_cancels_it_too(
    house: House,
) -> None:
    departure = Departure()
    departure.happened()
    answer = await asyncio.wait_for(house.tasks.run(ANN, hello(), 60.0, departure=departure), 10)
    task = await house.tasks.get(ANN, answer.spec.task_id)
    assert task.state is TaskState.CANCELLED


async def test_a_caller_that_departs_leaves_a_task_of_before_alone(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    departure = Departure()
    departure.happened()
    await house.tasks.run(ANN, hello(), 0.05, idempotency_key="k", departure=departure)
    assert (await house.tasks.get(ANN, receipt.task_id)).state is TaskState.QUEUED


async def test_a_key_makes_a_new_task_once_its_caller_departed(house: House) -> None:
    cancelled = await left(house, key="k")
    assert cancelled.state is TaskState.CANCELLED
    repeat = asyncio.create_task(house.tasks.run(ANN, hello(), 10.0, idempotency_key="k"))
    assert await served(house) != [cancelled.spec.task_id]
    assert state_of(await repeat) is TaskState.COMPLETED


async def test_a_departure_takes_no_key_of_a_task_that_has_finished(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await house.work()
    await withdraw(house.redis, receipt.spec)
    again = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (again.task_id, again.state) == (receipt.task_id, TaskState.COMPLETED)


async def test_a_repeat_that_came_before_the_departure_waits_for_a_new_task(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    repeat = asyncio.create_task(house.tasks.run(ANN, hello(), 10.0, idempotency_key="k"))
    await joined(house, receipt.task_id)
    await withdraw(house.redis, receipt.spec)
    assert await served(house) != [receipt.task_id]
    assert state_of(await repeat) is TaskState.COMPLETED


async def test_a_repeat_does_not_bring_back_what_its_owner_cancelled(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    repeat = asyncio.create_task(house.tasks.run(ANN, hello(), 10.0, idempotency_key="k"))
    await joined(house, receipt.task_id)
    await house.tasks.cancel(ANN, receipt.task_id)
    assert state_of(await repeat) is TaskState.CANCELLED
    assert await house.replica.claim(1) == []


async def joined(house: House, task_id: str) -> None:
    """Returns once somebody waits for a task under its key."""
    async with asyncio.timeout(10):
        while True:
            record: Any = await house.redis.hget(f"is:{{{ECHO.name}}}:t:{task_id}", "s")
            if decode_record(record).apis:
                return
            await asyncio.sleep(0.01)


async def served(house: House) -> list[str]:
    """The first task that comes, once it is done."""
    async with asyncio.timeout(10):
        while not (done := await house.work()):
            await asyncio.sleep(0.01)
    return done


def state_of(answer: Task | Receipt) -> TaskState:
    return answer.state


async def test_several_callers_can_wait_for_one_task(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    waits = [asyncio.create_task(house.tasks.get(ANN, receipt.task_id, 10.0)) for _ in range(3)]
    key = f"is:{{{ECHO.name}}}:t:{receipt.task_id}"
    record: Any = await house.redis.hget(key, "s")
    while not decode_record(record).apis:
        record = await house.redis.hget(key, "s")
        await asyncio.sleep(0.01)
    await house.work()
    assert {task.state for task in await asyncio.gather(*waits)} == {TaskState.COMPLETED}


async def test_one_idempotency_key_makes_one_task_however_often_it_is_sent(house: House) -> None:
    answers = await asyncio.gather(
        *(house.tasks.submit(ANN, hello(), idempotency_key="k") for _ in range(100))
    )
    assert len({answer.task_id for answer in answers}) == 1
    assert sum(not answer.existing for answer in answers) == 1
    assert await house.work() == [answers[0].task_id]
    again = await house.tasks.run(ANN, hello(), 5.0, idempotency_key="k")
    assert isinstance(again, Task)
    assert again.spec.task_id == answers[0].task_id


async def test_a_key_with_another_body_is_refused_and_keys_are_per_tenant(house: House) -> None:
    first = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    with pytest.raises(IdempotencyMismatchError) as caught:
        await house.tasks.submit(ANN, hello(priority=Priority.LOW), idempotency_key="k")
    assert caught.value.errors is not None
    assert caught.value.errors[0]["field"] == "Idempotency-Key"
    other = await house.tasks.submit(BOB, hello(), idempotency_key="k")
    assert other.task_id != first.task_id


async def test_what_is_no_id_is_no_task(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    await house.archive()
    tasks = house.tasks
    for written in ("x", "0" * 36, "\0", "\ud800", receipt.task_id.upper()):
        for call in (tasks.get, tasks.cancel, tasks.position, tasks.request):
            with pytest.raises(TaskNotFoundError) as caught:
                await call(ANN, written)
            assert caught.value.task_id == written


async def test_a_foreign_task_does_not_exist(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    for call in (house.tasks.get(BOB, receipt.task_id), house.tasks.cancel(BOB, receipt.task_id)):
        with pytest.raises(TaskNotFoundError):
            await call
    assert (await house.tasks.get(ROOT, receipt.task_id)).state is TaskState.QUEUED
    await house.archive()
    await house.redis.flushall()
    with pytest.raises(TaskNotFoundError):
        await house.tasks.get(BOB, receipt.task_id)


async def test_cancelling_a_queued_task_takes_it_off_the_queue(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    assert (await house.tasks.cancel(ANN, receipt.task_id)).state is TaskState.CANCELLED
    assert await house.work() == []


async def test_cancelling_a_running_task_discards_its_result(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    (lease,) = await house.replica.claim(1)
    assert (await house.tasks.cancel(ANN, receipt.task_id)).state is TaskState.CANCELLED
    assert await house.replica.extend([lease]) == {receipt.task_id}
    await house.replica.complete([(lease, b"1", Execution("w"))])
    assert house.replica.stale == 1
    task = await house.tasks.get(ANN, receipt.task_id)
    assert (task.state, task.result) == (TaskState.CANCELLED, None)


async def test_cancelling_what_redis_has_lost_is_refused_until_it_is_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AGE", -60.0)
    receipt = await house.tasks.submit(ANN, hello())
    await house.archive()
    await house.redis.flushall()
    with pytest.raises(QueueUnavailableError, match="being restored") as refused:
        await house.tasks.cancel(ANN, receipt.task_id)
    assert refused.value.retry_after == 60.0
    assert await recovery.Recovery(house.redis, house.database, house.settings).run() == 1
    assert (await house.tasks.cancel(ANN, receipt.task_id)).state is TaskState.CANCELLED


async def test_cancelling_a_finished_task_changes_nothing(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    await house.work()
    assert (await house.tasks.cancel(ANN, receipt.task_id)).state is TaskState.COMPLETED


async def test_a_retryable_failure_is_tried_three_times_then_failed(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    error = TaskError("engine-error", "boom", retryable=True)
    for _ in range(house.settings.max_attempts):
        (lease,) = await _claim(house)
        await house.replica.fail([(lease, error, Execution("w"))])
    task = await house.tasks.get(ANN, receipt.task_id)
    assert (task.state, task.attempts, task.error) == (TaskState.FAILED, 3, error)


async def test_the_first_failure_is_retried_soon_however_often_its_task_was_given_back(
    house: House,
) -> None:
    slow = house.settings.model_copy(update={"retry_delay": 1.0, "max_retry_delay": 3600.0})
    replica = ReplicaSession(house.redis, ECHO, house.store, "host:2:b", slow)
    for _ in range(10):
        await house.tasks.submit(ANN, hello())
    for _ in range(12):
        await replica.release(await replica.claim(100))
    leases = await replica.claim(100)
    error = TaskError("engine-error", "boom", retryable=True)
    await replica.fail([(lease, error, Execution("w")) for lease in leases])
    seconds, micros = await house.redis.time()
    delays = f"is:{{{ECHO.name}}}:delay"
    waits: list[Any] = await house.redis.zrange(delays, 0, -1, withscores=True)
    assert len(waits) == 10
    assert max(score for _, score in waits) <= seconds * 1000 + micros / 1000 + 1000
    await replica.leave()


async def test_a_spoiled_input_fails_its_task_only(house: House) -> None:
    bad = await house.tasks.submit(ANN, hello(data=LARGE))
    good = await house.tasks.submit(ANN, hello(data=LARGE))
    await house.store.put(f"tasks/{bad.task_id}/input.json", b'{"text": "xxx')
    assert await house.work() == [good.task_id]
    task = await house.tasks.get(ANN, bad.task_id)
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert task.error.type == "input-missing"
    assert "is spoiled: " in task.error.message


@pytest.mark.parametrize("spec", [b"{", b'{"data":' + b"[" * 9999, None])
async def test_a_task_that_cannot_be_decoded_fails_alone(house: House, spec: bytes | None) -> None:
    bad = await house.tasks.submit(ANN, hello())
    good = await house.tasks.submit(ANN, hello())
    key = f"is:{{{ECHO.name}}}:t:{bad.task_id}"
    await (house.redis.hdel(key, "spec") if spec is None else house.redis.hset(key, "spec", spec))
    assert await house.work() == [good.task_id]
    found: list[Any] = await house.redis.hmget(key, ["s", "err"])
    record, error = found
    assert decode_record(record).state is TaskState.FAILED
    assert b"unreadable-task" in error


async def test_a_task_that_cannot_be_decoded_is_read_by_its_owner_and_spoils_no_other_read(
    house: House,
) -> None:
    bad, worse, good = [await house.tasks.submit(ANN, hello()) for _ in range(3)]
    prefix = f"is:{{{ECHO.name}}}:t:"
    await house.redis.hset(prefix + bad.task_id, "spec", b"{")
    await house.work()
    await house.redis.hset(prefix + worse.task_id, "s", b"{")
    found = await asyncio.gather(
        *(house.tasks.get(ANN, each.task_id) for each in (bad, worse, good)),
        return_exceptions=True,
    )
    first, second, third = found
    assert isinstance(first, Task)
    assert isinstance(third, Task)
    assert first.error is not None
    assert (first.spec.task_id, first.error.type) == (bad.task_id, "unreadable-task")
    assert isinstance(second, UNREADABLE)
    assert third.state is TaskState.COMPLETED
    with pytest.raises(TaskNotFoundError):
        await house.tasks.get(BOB, bad.task_id)


async def test_a_failure_that_cannot_be_retried_is_final(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    (lease,) = await house.replica.claim(1)
    await house.replica.fail([(lease, TaskError("invalid-input", "no"), Execution("w"))])
    assert (await house.tasks.get(ANN, receipt.task_id)).state is TaskState.FAILED


async def _claim(house: House) -> list[Any]:
    """Claims, letting due retries come back first."""
    while True:
        await house.replica._queue.tick()
        if leases := await house.replica.claim(1):
            return leases


async def test_released_tasks_are_not_charged_an_attempt(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    await house.replica.release(await house.replica.claim(1))
    await house.work()
    assert (await house.tasks.get(ANN, receipt.task_id)).attempts == 1


async def test_large_inputs_and_results_go_through_the_object_store(house: House) -> None:
    text = "x" * 5000
    receipt = await house.tasks.submit(ANN, hello(data={"text": text}))
    (lease,) = await house.replica.claim(1)
    assert lease.spec.data == {"text": text}
    body = msgspec.json.encode(["y" * 5000])
    await house.replica.complete([(lease, body, Execution("w"))])
    await house.archive()
    assert bytes((await house.tasks.get(ANN, receipt.task_id)).result or b"") == body
    await house.redis.flushall()
    task = await house.tasks.get(ANN, receipt.task_id)
    assert bytes(task.result or b"") == body
    assert (task.spec.data, task.spec.data_ref is None) == (None, False)


async def test_a_claim_that_a_failover_lost_cannot_replace_the_result_of_the_next(
    house: House,
) -> None:
    """Redis knows nothing of the first claim, so the second one has the same number."""
    receipt = await house.tasks.submit(ANN, hello())
    redis = Work(house.redis, house.settings)
    before = await redis.saved()
    (lost,) = await house.replica.claim(1)
    await redis.went_back(before)
    other = ReplicaSession(house.redis, ECHO, house.store, "host:2:b", house.settings)
    (held,) = await other.claim(1)
    assert held.attempt == lost.attempt

    assert await house.replica.extend([lost]) == {receipt.task_id}
    await house.replica.release([lost])
    assert await other.extend([held]) == set()
    body, late = msgspec.json.encode("b" * 5000), msgspec.json.encode("a" * 5000)
    await other.complete([(held, body, Execution(other.worker))])
    await house.replica.complete([(lost, late, Execution(house.replica.worker))])
    assert house.replica.stale == 1
    assert bytes((await house.tasks.get(ANN, receipt.task_id)).result or b"") == body
    folder = house.settings.inferstack_home / "objects/tasks" / receipt.task_id
    assert [found.read_bytes() for found in folder.iterdir()] == [body]
    await other.leave()


async def test_a_second_lease_of_one_attempt_leaves_the_result_of_the_first(house: House) -> None:
    """The same replica after a failover; history may refer to either result."""
    receipt = await house.tasks.submit(ANN, hello())
    redis = Work(house.redis, house.settings)
    before = await redis.saved()
    run = Execution(house.replica.worker)
    for letter in ("a", "b"):
        (lease,) = await house.replica.claim(1)
        assert lease.attempt == 1
        await house.replica.complete([(lease, msgspec.json.encode(letter * 5000), run)])
        await house.archive()
        if letter == "a":
            await redis.went_back(before)
    ended = await house.history.get(receipt.task_id)
    assert ended is not None
    assert await house.store.get(str(ended.result_ref)) == msgspec.json.encode("a" * 5000)


async def test_a_result_that_an_earlier_lease_has_given_replaces_the_later_one(
    house: House,
) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    redis = Work(house.redis, house.settings)
    before = await redis.saved()
    (first,) = await house.replica.claim(1)
    await redis.went_back(before)
    (second,) = await house.replica.claim(1)
    run = Execution(house.replica.worker)
    for lease, letter in ((first, "a"), (second, "b"), (second, "b")):
        await house.replica.complete([(lease, msgspec.json.encode(letter * 5000), run)])
    folder = house.settings.inferstack_home / "objects/tasks" / receipt.task_id
    assert [found.read_bytes() for found in folder.iterdir()] == [msgspec.json.encode("a" * 5000)]


class HangingStore:
    """An object store that takes requests and does not answer until told."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.answers = asyncio.Event()

    async def get(self, key: str) -> bytes:
        await self.answers.wait()
        return await self._store.get(key)


@pytest.fixture
def hanging(house: House) -> HangingStore:
    made = HangingStore(house.store)
    house.replica._store = cast(ObjectStore, made)
    return made


async def test_a_store_that_hangs_holds_up_no_small_input(
    house: House, hanging: HangingStore
) -> None:
    large = await house.tasks.submit(ANN, hello(data=LARGE))
    small = await house.tasks.submit(ANN, hello())
    assert [lease.task_id for lease in await house.replica.claim(5)] == [small.task_id]
    assert await house.replica.claim(5) == []
    hanging.answers.set()
    async with asyncio.timeout(5):
        while not (late := await house.replica.claim(5)):
            await house.replica.wait(1.0)
    assert [(lease.task_id, lease.spec.data) for lease in late] == [(large.task_id, LARGE)]


async def test_a_task_that_waits_for_its_input_is_held_on_to(
    house: House, hanging: HangingStore
) -> None:
    receipt = await house.tasks.submit(ANN, hello(data=LARGE))
    assert await house.replica.claim(5) == []
    lease = f"{prefix(ECHO.name)}lease"
    await house.redis.zadd(lease, {receipt.task_id: 1})
    assert await house.replica.extend([]) == set()
    assert float(await house.redis.zscore(lease, receipt.task_id) or 0) > 1
    hanging.answers.set()


async def test_a_store_that_hangs_costs_a_task_no_attempt(
    house: House, hanging: HangingStore
) -> None:
    settings = house.settings.model_copy(update={"lease": 1.0})
    replica = ReplicaSession(house.redis, ECHO, cast(ObjectStore, hanging), "host:2:b", settings)
    receipt = await house.tasks.submit(ANN, hello(data=LARGE))
    assert await replica.claim(5) == []
    (load,) = replica._loading
    assert await asyncio.wait_for(load, 5) is None
    hanging.answers.set()
    async with asyncio.timeout(5):
        while not await replica.claim(5):
            await replica._queue.tick()
            await asyncio.sleep(0.01)
    assert (await house.tasks.get(ANN, receipt.task_id)).attempts == 1
    await replica.leave()


async def test_a_replica_that_leaves_gives_back_what_waits_for_its_input(
    house: House, hanging: HangingStore
) -> None:
    receipt = await house.tasks.submit(ANN, hello(data=LARGE))
    assert await house.replica.claim(5) == []
    await house.replica.leave()
    (again,) = await house.tasks._directory.targets()[0].queue.claim("host:2:b", 5)
    assert again.task_id == receipt.task_id


async def test_a_waiting_submit_gets_a_large_result(house: House) -> None:
    waiting = asyncio.create_task(house.tasks.run(ANN, hello(), 10.0))
    await house.replica.wait(5.0)
    body = msgspec.json.encode("z" * 5000)
    await house.work(body)
    task = await waiting
    assert isinstance(task, Task)
    assert bytes(task.result or b"") == body


async def test_a_lost_input_fails_the_task_and_not_the_replica(house: House) -> None:
    lost = await house.tasks.submit(ANN, hello(data={"text": "x" * 5000}))
    fine = await house.tasks.submit(ANN, hello())
    await house.store.delete([f"tasks/{lost.task_id}/input.json"])
    assert await house.work() == [fine.task_id]
    task = await house.tasks.get(ANN, lost.task_id)
    assert task.state is TaskState.FAILED
    assert task.error is not None
    assert task.error.type == "input-missing"


async def test_a_full_tenant_and_a_full_queue_are_refused(house: House) -> None:
    for _ in range(house.settings.max_tenant_queue):
        await house.tasks.submit(ANN, hello())
    with pytest.raises(TenantQueueFullError) as tenant:
        await house.tasks.submit(ANN, hello())
    assert tenant.value.retry_after
    answers = await house.tasks.submit_many(BOB, [hello()] * 12)
    assert [type(answer) for answer in answers].count(TenantQueueFullError) == 2
    await house.tasks.submit_many(ROOT, [hello()] * 5)
    with pytest.raises(QueueFullError) as full:
        await house.tasks.submit(ROOT, hello())
    assert full.value.retry_after
    await house.work()
    await house.tasks.submit(ANN, hello())


async def test_an_unknown_model_or_version_is_not_found(house: House) -> None:
    for submission in (hello(model="nope"), hello(model_version=7)):
        with pytest.raises(ModelNotFoundError):
            await house.tasks.submit(ANN, submission)


async def test_a_task_that_would_be_late_is_refused_when_asked_for(house: House) -> None:
    for _ in range(9):
        await house.tasks.submit(ANN, hello())
    await house.tasks.refresh()
    with pytest.raises(DeadlineUnreachableError):
        await house.tasks.submit(BOB, hello(timeout=0.5, reject_if_late=True))
    await house.tasks.submit(BOB, hello(timeout=50, reject_if_late=True))


async def test_one_bad_item_does_not_sink_a_batch(house: House) -> None:
    good, bad = await house.tasks.submit_many(ANN, [hello(), hello(model="nope")])
    assert isinstance(good, Receipt)
    assert isinstance(bad, ModelNotFoundError)


async def test_history_shows_unfinished_tasks_as_they_are_now(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    await house.archive()
    await house.replica.claim(1)
    wanted = HistoryFilter(status=TaskState.RUNNING)
    assert [t.spec.task_id for t in (await house.tasks.list(ANN, wanted)).tasks] == [
        receipt.task_id
    ]
    assert (await house.tasks.list(ANN, HistoryFilter(status=TaskState.QUEUED))).tasks == []
    assert (await house.tasks.list(BOB, HistoryFilter())).tasks == []


async def test_a_page_has_also_what_is_spoiled_in_redis(house: House) -> None:
    receipts = [await house.tasks.submit(ANN, hello()) for _ in range(3)]
    await house.archive()
    bad, worse, _ = (f"is:{{{ECHO.name}}}:t:{receipt.task_id}" for receipt in receipts)
    await house.redis.hset(bad, "spec", b"{")
    await house.redis.hset(worse, "s", b"{")
    page = await house.tasks.list(ANN, HistoryFilter())
    assert {t.spec.task_id for t in page.tasks} == {receipt.task_id for receipt in receipts}


async def test_a_completion_missed_while_disconnected_is_swept_up(house: House) -> None:
    waiting = asyncio.create_task(house.tasks.run(ANN, hello(), 10.0))
    await house.replica.wait(5.0)
    assert await house.redis.client_kill_filter(_type="pubsub") == 1
    await house.work()
    task = await waiting
    assert isinstance(task, Task)
    assert task.state is TaskState.COMPLETED


async def test_expired_tasks_tell_who_waits(house: House) -> None:
    waiting = asyncio.create_task(house.tasks.run(ANN, hello(timeout=0.001), 10.0))
    await house.replica.wait(5.0)
    while not waiting.done():
        await house.replica._queue.tick()
        await asyncio.sleep(0.005)
    task = await waiting
    assert isinstance(task, Task)
    assert task.state is TaskState.EXPIRED


async def test_high_priority_overtakes_and_low_still_moves(house: House) -> None:
    low = [await house.tasks.submit(ANN, hello(priority=Priority.LOW)) for _ in range(2)]
    high = [await house.tasks.submit(BOB, hello(priority=Priority.HIGH)) for _ in range(9)]
    order = []
    for _ in range(11):
        order += [lease.task_id for lease in await house.replica.claim(1)]
    assert order[:7] == [receipt.task_id for receipt in high[:7]]
    assert order[7] == low[0].task_id, "one claim in eight starts at the low end"
    assert order[8:] == [high[7].task_id, high[8].task_id, low[1].task_id]


async def test_a_flooding_tenant_does_not_delay_a_quiet_one(house: House) -> None:
    flood = [await house.tasks.submit(ANN, hello()) for _ in range(9)]
    quiet = await house.tasks.submit(BOB, hello())
    first, second, *_ = [await house.replica.claim(1) for _ in range(10)]
    assert first[0].task_id == flood[0].task_id
    assert second[0].task_id == quiet.task_id


async def test_a_batch_sent_twice_under_one_key_makes_each_task_once(house: House) -> None:
    items = [hello(), hello(priority=Priority.HIGH)]
    first = await house.tasks.submit_many(ANN, items, idempotency_key="k")
    second = await house.tasks.submit_many(ANN, items, idempotency_key="k")
    ids = [[a.task_id for a in answers if isinstance(a, Receipt)] for answers in (first, second)]
    assert ids[0] == ids[1]
    assert sorted(await house.work()) == sorted(ids[0])


async def test_an_item_of_a_batch_that_was_mended_does_not_make_its_neighbours_again(
    house: House,
) -> None:
    bad = InvalidRequestError("data: is missing")
    first = await house.tasks.submit_many(ANN, [hello(), bad, hello()], idempotency_key="k")
    mended = await house.tasks.submit_many(ANN, [hello(), hello(), hello()], idempotency_key="k")
    assert first[1] is bad
    ids = [[a.task_id for a in answers if isinstance(a, Receipt)] for answers in (first, mended)]
    assert ids[0] == [ids[1][0], ids[1][2]]
    assert sorted(await house.work()) == sorted(ids[1])


async def test_others_use_the_event_loop_while_a_batch_is_submitted(house: House) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    refused = [hello(model="nope")] * 1000
    busy = asyncio.create_task(others())
    answers = await house.tasks.submit_many(ANN, refused)
    busy.cancel()
    assert len(answers) == 1000
    assert turns > 25


async def test_a_task_waits_only_for_its_own_lane_and_those_above(house: House) -> None:
    for _ in range(9):
        await house.tasks.submit(ANN, hello())
    await house.tasks.refresh()
    late = {"timeout": 0.5, "reject_if_late": True}
    await house.tasks.submit(BOB, hello(priority=Priority.HIGH, **late))
    for priority in (Priority.NORMAL, Priority.LOW):
        with pytest.raises(DeadlineUnreachableError):
            await house.tasks.submit(BOB, hello(priority=priority, **late))


async def test_metadata_over_the_limit_are_refused(house: House) -> None:
    most = MAX_METADATA - len('{"a":""}')
    large = hello(data={"text": "x" * 5000}, metadata={"a": "x" * most})
    await house.tasks.submit(ANN, large)
    too_large = hello(metadata={"a": "x" * (most + 1)})
    with pytest.raises(InvalidRequestError) as caught:
        await house.tasks.submit(ANN, too_large)
    assert caught.value.errors is not None
    assert caught.value.errors[0]["field"] == "metadata"
    (answer,) = await house.tasks.submit_many(ANN, [too_large])
    assert isinstance(answer, InvalidRequestError)


class Slow:
    """An admission that takes long for some inputs, and notes where it was asked."""

    def __init__(self) -> None:
        self.threads: list[str] = []

    def slow(self, data: dict[str, Any], inputs: int = 1) -> bool:
        return len(data["text"]) * inputs > 100

    def check(self, data: dict[str, Any]) -> float:
        self.threads.append(threading.current_thread().name)
        return 3.0


async def test_long_inputs_are_checked_beside_the_event_loop(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target,) = house.tasks._directory.targets()
    admission = Slow()
    monkeypatch.setattr(target, "admission", admission)
    receipt = await house.tasks.submit(ANN, hello(data={"text": "x" * 101}))
    assert receipt.spec.cost == 3.0
    await house.tasks.submit(ANN, hello())
    await house.tasks.submit_many(BOB, [hello(data={"text": "x" * 40})] * 3)
    main = threading.main_thread().name
    assert [name == main for name in admission.threads] == [False, True, False, False, False]


def objects(house: House) -> list[str]:
    """Every file and folder in the object store."""
    folder = Path(house.settings.inferstack_home) / "objects"
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


async def test_the_input_of_a_refused_task_is_removed(house: House) -> None:
    first = await house.tasks.submit(ANN, hello(data=LARGE), idempotency_key="k")
    kept = objects(house)
    assert f"tasks/{first.task_id}/input.json" in kept
    again = await house.tasks.submit(ANN, hello(data=LARGE), idempotency_key="k")
    assert again.existing
    joined = await house.tasks.run(ANN, hello(data=LARGE), 0.01, idempotency_key="k")
    assert isinstance(joined, Receipt)
    other = hello(data=LARGE, priority=Priority.LOW)
    with pytest.raises(IdempotencyMismatchError):
        await house.tasks.submit(ANN, other, idempotency_key="k")
    for _ in range(9):
        await house.tasks.submit(ANN, hello())
    with pytest.raises(TenantQueueFullError):
        await house.tasks.run(ANN, hello(data=LARGE), 5.0)
    await house.tasks.submit_many(BOB, [hello()] * 10)
    await house.tasks.submit_many(ROOT, [hello()] * 5)
    with pytest.raises(QueueFullError):
        await house.tasks.submit(ROOT, hello(data=LARGE))
    assert objects(house) == kept
    await house.work()
    assert (await house.tasks.get(ANN, first.task_id)).state is TaskState.COMPLETED


async def test_the_result_of_a_lost_lease_is_removed(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    (lease,) = await house.replica.claim(1)
    await house.tasks.cancel(ANN, receipt.task_id)
    await house.replica.complete([(lease, b'"%b"' % (b"y" * 5000), Execution("w"))])
    assert house.replica.stale == 1
    assert objects(house) == []


async def test_a_completion_repeated_after_its_task_was_forgotten_keeps_the_result(
    house: House,
) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    (lease,) = await house.replica.claim(1)
    done = [(lease, b'"%b"' % (b"y" * 5000), Execution("w"))]
    await house.replica.complete(done)
    await house.replica.complete(done)
    await house.archive()
    await house.redis.flushall()
    await house.replica.complete(done)
    task = await house.tasks.get(ANN, receipt.task_id)
    assert bytes(task.result or b"") == done[0][1]


async def test_a_drain_gives_those_who_wait_a_receipt_or_the_task_as_it_is(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    submitting = asyncio.create_task(house.tasks.run(ANN, hello(), 60.0))
    reading = asyncio.create_task(house.tasks.get(ANN, receipt.task_id, 60.0))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        house.tasks.cut_waits(0.05)
        assert isinstance(await submitting, Receipt)
        assert (await reading).state is TaskState.QUEUED
        assert isinstance(await house.tasks.run(ANN, hello(), 60.0), Receipt)


async def test_a_sweep_reads_many_tasks_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [(await house.tasks.submit(ANN, hello())).task_id for _ in range(10)]
    await house.work()
    (target,) = house.tasks._directory.targets()
    run, scripts, heard = target.queue._run, [], []

    async def counted(name: str, *args: Any) -> Any:
        scripts.append(name)
        return await run(name, *args)

    monkeypatch.setattr(target.queue, "_run", counted)
    for task_id in ids:
        house.tasks._channel.listen(task_id, lambda news: heard.append(news.task_id))
    await house.tasks._sweep(ids)
    assert (heard, scripts) == (ids, ["load"])


async def test_a_key_finds_its_task_again_after_a_new_version_came(house: House) -> None:
    first = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    newer = msgspec.structs.replace(ECHO, version=2)
    await Registry(house.redis).put(newer)
    await house.tasks.refresh()
    assert (await house.tasks.submit(ANN, hello())).spec.model_version == 2
    again = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (again.task_id, again.existing) == (first.task_id, True)


async def test_a_key_used_for_another_model_is_another_body(house: House) -> None:
    await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await Registry(house.redis).put(msgspec.structs.replace(ECHO, model="other"))
    await house.tasks.refresh()
    with pytest.raises(IdempotencyMismatchError):
        await house.tasks.submit(ANN, hello(model="other"), idempotency_key="k")


async def test_tenants_and_keys_with_colons_do_not_meet(house: House) -> None:
    first = await house.tasks.submit(Caller("a", "a"), hello(), idempotency_key="b:c")
    second = await house.tasks.submit(Caller("a:b", "x"), hello(), idempotency_key="c")
    assert first.task_id != second.task_id
    assert not second.existing


async def test_a_request_whose_commit_was_repeated_still_waits_for_its_own_task(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the first commit was lost: the second one finds the task."""
    (target,) = house.tasks._directory.targets()
    enqueue = target.queue.enqueue

    async def twice(*args: Any, **options: Any) -> Any:
        await enqueue(*args, **options)
        return await enqueue(*args, **options)

    monkeypatch.setattr(target.queue, "enqueue", twice)
    assert (await left(house)).state is TaskState.CANCELLED


async def leaves(house: House, *deployments: Deployment) -> None:
    """These are not registered any more; from now on only the test looks at the registry."""
    await end(house.tasks.directory._task)
    for deployment in deployments:
        await Registry(house.redis).remove(deployment.name)
    await house.tasks.refresh()


async def test_a_task_of_a_deployment_that_left_can_be_seen_and_cancelled(house: House) -> None:
    receipt = await house.tasks.submit(ANN, hello())
    await house.archive()
    (lease,) = await house.replica.claim(1)
    await leaves(house, ECHO)
    assert (await house.tasks.get(ANN, receipt.task_id)).state is TaskState.RUNNING
    page = await house.tasks.list(ANN, HistoryFilter())
    assert [task.state for task in page.tasks] == [TaskState.RUNNING]
    assert (await house.tasks.cancel(ANN, receipt.task_id)).state is TaskState.CANCELLED
    assert (await house.replica.extend([lease])) == {receipt.task_id}
    with pytest.raises(TaskNotFoundError):
        await house.tasks.get(BOB, receipt.task_id)


NEWER = msgspec.structs.replace(ECHO, version=2)


async def rolls_back(house: House, *, failed: bool) -> None:
    """Version 2 is given up: its folder is gone, and perhaps it has been removed."""
    if failed:
        gone = msgspec.structs.replace(NEWER, state=DeploymentState.FAILED, reason="gone")
        await Registry(house.redis).put(gone)
        await leaves(house)
    else:
        await leaves(house, NEWER)


@pytest.mark.parametrize("failed", [False, True])
async def test_a_key_finds_its_task_after_its_deployment_was_rolled_back(
    house: House, failed: bool
) -> None:
    await Registry(house.redis).put(NEWER)
    await house.tasks.refresh()
    first = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert first.spec.model_version == 2
    await rolls_back(house, failed=failed)
    again = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (again.task_id, again.existing) == (first.task_id, True)
    with pytest.raises(IdempotencyMismatchError):
        await house.tasks.submit(ANN, hello(priority=Priority.HIGH), idempotency_key="k")


@pytest.mark.parametrize("failed", [False, True])
async def test_a_key_that_a_deployment_never_took_does_not_stay_with_it(
    house: House, failed: bool
) -> None:
    await Registry(house.redis).put(msgspec.structs.replace(NEWER, max_queue=1))
    await house.tasks.refresh()
    await house.tasks.submit(ANN, hello())
    with pytest.raises(QueueFullError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await rolls_back(house, failed=failed)
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (receipt.spec.model_version, receipt.existing) == (1, False)
    again = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert again.task_id == receipt.task_id


async def test_a_key_that_one_model_refused_is_free_for_another(house: House) -> None:
    small = msgspec.structs.replace(ECHO, model="small")
    for deployment in (NEWER, small):
        await Registry(house.redis).put(msgspec.structs.replace(deployment, max_queue=1))
    await house.tasks.refresh()
    await house.tasks.submit(ANN, hello())
    with pytest.raises(QueueFullError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")
    with pytest.raises(QueueFullError):
        await house.tasks.submit(ANN, hello(), idempotency_key="v")
    receipt = await house.tasks.submit(ANN, hello(model="small"), idempotency_key="k")
    assert receipt.spec.model == "small"
    receipt = await house.tasks.submit(ANN, hello(model_version=1), idempotency_key="v")
    assert receipt.spec.model_version == 1
    # A key that is taken is no other model's.
    with pytest.raises(IdempotencyMismatchError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("version", [None, 1])
async def test_a_key_finds_its_task_though_nothing_serves_it_any_more(
    house: House, failed: bool, version: int | None
) -> None:
    given = hello(model_version=version)
    first = await house.tasks.submit(ANN, given, idempotency_key="k")
    if failed:
        await Registry(house.redis).put(msgspec.structs.replace(ECHO, state=DeploymentState.FAILED))
        await leaves(house)
    else:
        await leaves(house, ECHO)
    again = await house.tasks.submit(ANN, given, idempotency_key="k")
    assert (again.task_id, again.existing) == (first.task_id, True)
    # Also who waits, while history does not know of it.
    answer = await house.tasks.run(ANN, given, 0.1, idempotency_key="k")
    assert isinstance(answer, Receipt)
    assert (answer.task_id, answer.existing) == (first.task_id, True)
    with pytest.raises((ModelNotFoundError, DeploymentUnavailableError)):
        await house.tasks.submit(ANN, given, idempotency_key="other")
    assert len(await house.replica.claim(10)) == 1


async def test_a_key_is_prolonged_by_who_uses_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Registry(house.redis).put(msgspec.structs.replace(ECHO, max_queue=1))
    await house.tasks.refresh()
    await house.tasks.submit(ANN, hello())
    for _ in range(2):
        with pytest.raises(QueueFullError):
            await house.tasks.submit(ANN, hello(), idempotency_key="k")
        (route,) = await house.redis.keys("is:{keys}:*")
        assert await house.redis.pttl(route) > UNUSED * 1000 - 5000
        await house.redis.pexpire(route, 10_000)
    # Taken when the time was just over: it is remembered all the same.
    find = house.tasks._intake._route

    async def slowly(*given: Any) -> Any:
        found = await find(*given)
        await house.redis.delete(route)
        return found

    monkeypatch.setattr(house.tasks._intake, "_route", slowly)
    await house.work()
    await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert await house.redis.get(route) == b"echo:1"
    assert await house.redis.pttl(route) > UNUSED * 1000


async def test_a_repeat_is_not_taken_where_nothing_serves_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task may be purged between the look and the submit."""
    find = house.tasks._intake._repeated

    async def purged(tenant: str, key: str) -> Any:
        found = await find(tenant, key)
        assert found is not None
        await found.queue.free(tenant, key, first.task_id)
        return found

    first = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await leaves(house, ECHO)
    monkeypatch.setattr(house.tasks._intake, "_repeated", purged)
    with pytest.raises(CircuitOpenError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert len(await house.replica.claim(10)) == 1


STRICT = msgspec.structs.replace(NEWER, input_schema={"required": ["other"]})


async def test_a_key_finds_its_task_though_the_newest_version_refuses_its_input(
    house: House,
) -> None:
    first = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await Registry(house.redis).put(STRICT)
    await house.tasks.refresh()
    again = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (again.task_id, again.existing) == (first.task_id, True)


async def test_what_is_refused_leaves_no_key_behind(house: House) -> None:
    await Registry(house.redis).put(STRICT)
    await house.tasks.refresh()
    with pytest.raises(InvalidInputError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert await house.redis.keys("is:{keys}:*") == []


async def test_a_key_is_remembered_long_only_once_a_task_was_accepted(house: House) -> None:
    await house.tasks.submit_many(ANN, [hello()] * 11, idempotency_key="k")
    kept = [await house.redis.pttl(key) for key in await house.redis.keys("is:{keys}:*")]
    refused, accepted = 1, 10
    assert sorted(ttl > UNUSED * 1000 for ttl in kept) == [False] * refused + [True] * accepted
