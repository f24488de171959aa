"""Dead letters on a real Redis, PostgreSQL and object store."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest
import pytest_asyncio

from inferstack.errors import (
    ConflictError,
    InferstackError,
    InvalidInputError,
    ModelNotFoundError,
    NotADeadLetterError,
    NotArchivedYetError,
    NotFoundError,
    QueueUnavailableError,
    StorageUnavailableError,
    TaskNotFoundError,
    TenantQueueFullError,
)
from inferstack.lifecycle import dead_letters, redrive
from inferstack.lifecycle.dead_letters import DeadLetters
from inferstack.lifecycle.redrive import Changes
from inferstack.lifecycle.retention import remove_old_tasks
from inferstack.lifecycle.types import Caller, Receipt, Submission
from inferstack.queue.registry import Registry
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Enqueued
from inferstack.storage import database
from inferstack.storage import dead_letters as storage
from inferstack.storage.dead_letters import Held, LetterFilter
from inferstack.task import Execution, Priority, Task, TaskError, TaskSpec, TaskState, new_task_id
from tests.lifecycle.conftest import ANN, BOB, ECHO, ROOT, House

pytestmark = pytest.mark.asyncio

ALL = LetterFilter()
BOOM = TaskError("engine-error", "boom", traceback="line 1")
NEXT = msgspec.structs.replace(ECHO, version=2)


class Office:
    """The dead letters of a house."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.letters = DeadLetters(
            house.redis, house.tasks, house.store, house.database, house.settings
        )
        self.stored = storage.DeadLetters(house.database)

    async def fail(
        self,
        caller: Caller = ANN,
        error: TaskError = BOOM,
        archive: bool = True,
        **fields: Any,
    ) -> str:
        """A task that failed and is archived."""
        submission = Submission(**({"data": {"text": "hello"}} | fields))
        receipt = await self.house.tasks.submit(caller, submission)
        leases = await self.house.replica.claim(100)
        assert [lease.task_id for lease in leases] == [receipt.task_id]
        await self.house.replica.begin(leases)
        run = Execution("host:1:a", 1.0, 2.0, 1)
        await self.house.replica.fail([(lease, error, run) for lease in leases])
        if archive:
            await self.house.archive()
        return receipt.task_id

    async def listed(self, caller: Caller = ANN, wanted: LetterFilter = ALL) -> list[str]:
        page = await self.letters.list(caller, wanted, 200, None)
        return [letter.task.spec.task_id for letter in page.letters]

    async def forget(self) -> None:
        """What time does to Redis: archived tasks and idempotency keys go."""
        kept = {b"is:deployments"}
        keys = [key for key in await self.house.redis.keys("*") if key not in kept]
        for key in keys:
            if b"idem:" in key or b":t:" in key:
                await self.house.redis.delete(key)

    async def forget_keys(self) -> None:
        """What IDEMPOTENCY_TTL does."""
        for key in await self.house.redis.keys("*idem:*"):
            await self.house.redis.delete(key)

    async def copies(self, task_id: str) -> list[str]:
        """Every task that repeats a dead letter, in Redis or PostgreSQL."""
        await self.house.archive()
        found = set()
        for key in await self.house.redis.keys("is:*:t:*"):
            assert isinstance(key, bytes)
            spec = await self.house.redis.hget(key, "spec")
            assert isinstance(spec, bytes)
            if msgspec.json.decode(spec).get("redrive_of") == task_id:
                found.add(key.decode().rsplit(":", 1)[1])
        async with self.house.database.transaction() as connection:
            rows = await connection.exec_driver_sql(
                "SELECT id::text FROM tasks WHERE redrive_of = %s::uuid", (task_id,)
            )
            found |= set(rows.scalars())
        return sorted(found)


@pytest_asyncio.fixture
async def office(house: House) -> AsyncIterator[Office]:
    yield Office(house)


# Listing and reading.


async def test_a_failed_task_is_listed_until_it_is_redriven(office: Office) -> None:
    task_id = await office.fail()
    page = await office.letters.list(ANN, ALL, 50, None)
    (letter,) = page.letters
    assert (letter.task.spec.task_id, letter.task.error, letter.task.attempts) == (task_id, BOOM, 1)
    await office.letters.redrive(ANN, task_id)
    assert await office.listed() == []
    with pytest.raises(NotADeadLetterError, match="was redriven as"):
        await office.letters.get(ANN, task_id)


async def test_only_failed_tasks_are_listed(office: Office) -> None:
    done = await office.house.tasks.submit(ANN, Submission(data={}))
    await office.house.work()
    await office.house.archive()
    waiting = await office.house.tasks.submit(ANN, Submission(data={}))
    assert await office.listed() == []
    for task_id, state in ((done.task_id, "completed"), (waiting.task_id, "queued")):
        for call in (office.letters.get, office.letters.redrive, office.letters.purge):
            with pytest.raises(NotADeadLetterError, match=f"is {state}, not failed"):
                await call(ANN, task_id)


async def test_another_tenants_dead_letter_does_not_exist(office: Office) -> None:
    task_id = await office.fail()
    for call in (office.letters.get, office.letters.redrive, office.letters.purge):
        for unknown in (task_id, new_task_id("echo:1"), "not an id", "\0" * 36):
            with pytest.raises(TaskNotFoundError):
                await call(BOB, unknown)
    assert await office.listed(BOB) == []
    assert await office.listed(ROOT) == [task_id]
    ((_, answer),) = await office.letters.redrive_all(BOB, [task_id])
    assert isinstance(answer, TaskNotFoundError)
    assert await office.letters.redrive_where(BOB, ALL, 10) == []
    assert await office.letters.purge_where(BOB, ALL, 10) == (0, False)
    assert await office.listed() == [task_id]


async def test_an_admin_redrives_for_the_tenant_that_it_failed_for(office: Office) -> None:
    task_id = await office.fail()
    receipt = await office.letters.redrive(ROOT, task_id)
    assert (receipt.spec.tenant, receipt.spec.user) == ("ann", "ann")
    assert (await office.house.tasks.get(ANN, receipt.task_id)).state is TaskState.QUEUED


async def test_a_task_that_failed_a_moment_ago_asks_to_come_back(office: Office) -> None:
    task_id = await office.fail(archive=False)
    for call in (office.letters.get, office.letters.redrive, office.letters.purge):
        with pytest.raises(NotArchivedYetError) as caught:
            await call(ANN, task_id)
        assert caught.value.retry_after == 1.0
    await office.house.archive()
    assert await office.letters.redrive(ANN, task_id)


async def test_pages_hold_every_dead_letter_once_while_others_are_purged(office: Office) -> None:
    failed = [await office.fail() for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page = await office.letters.list(ANN, ALL, 2, cursor)
        ids = [letter.task.spec.task_id for letter in page.letters]
        seen += ids
        cursor = page.next_cursor
        if cursor is None:
            break
        await office.letters.purge(ANN, ids[-1])
    assert seen == failed[::-1]


async def test_filters_choose(office: Office) -> None:
    odd = TaskError('we"ird_%\\', "a nul \0")
    first = await office.fail()
    second = await office.fail(error=odd)
    page = await office.letters.list(ANN, ALL, 50, None)
    later = page.letters[0].task.completed_at
    assert later is not None
    assert await office.listed(wanted=LetterFilter(error="engine-error")) == [first]
    assert await office.listed(wanted=LetterFilter(error='we"ird_%\\')) == [second]
    assert await office.listed(wanted=LetterFilter(error="engine-erro")) == []
    assert await office.listed(wanted=LetterFilter(error="we_ird")) == []
    assert await office.listed(wanted=LetterFilter(model="echo")) == [second, first]
    assert await office.listed(wanted=LetterFilter(model="other")) == []
    assert await office.listed(wanted=LetterFilter(since=later)) == [second]
    assert await office.listed(wanted=LetterFilter(before=later)) == [first]


@pytest.mark.parametrize(
    "cursor", ["x", "-", "1-x", "²-01975a3c-7f2e-7c41-9d0b-3f6e5a1b2c3d", "9" * 64]
)
async def test_a_cursor_of_elsewhere_is_refused(office: Office, cursor: str) -> None:
    with pytest.raises(InferstackError, match="cursor") as caught:
        await office.letters.list(ANN, ALL, 50, cursor)
    assert caught.value.status == 422


async def test_the_input_is_shown_from_wherever_it_lies(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = await office.letters.get(ANN, await office.fail(metadata={"a": 1}))
    assert (bytes(small.input or b""), small.input_bytes) == (b'{"text":"hello"}', 16)
    assert small.letter.task.spec.metadata == {"a": 1}
    task_id = await office.fail(data={"text": "x" * 5000})
    large = await office.letters.get(ANN, task_id)
    assert msgspec.json.decode(large.input or b"") == {"text": "x" * 5000}
    monkeypatch.setattr(dead_letters, "SHOWN", 5000)
    bounded = await office.letters.get(ANN, task_id)
    assert (bounded.input, bounded.input_bytes) == (None, large.input_bytes)
    await office.house.store.delete([f"tasks/{task_id}/input.json"])
    gone = await office.letters.get(ANN, task_id)
    assert (gone.input, gone.input_bytes) == (None, None)


# Redriving.


async def test_a_redrive_is_a_new_task_that_asks_for_the_same(office: Office) -> None:
    wanted: dict[str, Any] = {"priority": Priority.LOW, "timeout": None, "metadata": {"a": 1}}
    task_id = await office.fail(**wanted)
    old = (await office.letters.get(ANN, task_id)).letter.task
    receipt = await office.letters.redrive(ANN, task_id)
    assert (receipt.position, receipt.existing) == (1, False)
    await office.house.work()
    await office.house.archive()
    new = await office.house.tasks.get(ANN, receipt.task_id)
    assert (new.state, bytes(new.result or b"")) == (TaskState.COMPLETED, b'"done"')
    fields = ("model", "model_version", "tenant", "user", "timeout", "priority", "cost")
    for field in (*fields, "metadata"):
        assert getattr(new.spec, field) == getattr(old.spec, field), field
    assert bytes(new.spec.data) == bytes(old.spec.data)
    assert new.spec.redrive_of == task_id
    archived = await office.house.history.get(receipt.task_id)
    assert archived is not None
    assert archived.spec.redrive_of == task_id
    assert (await office.house.tasks.get(ANN, task_id)).state is TaskState.FAILED


async def test_a_redrive_may_change_version_priority_and_timeout(office: Office) -> None:
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    task_id = await office.fail(model_version=1)
    changes = Changes(model_version=2, priority=Priority.HIGH, timeout=None)
    spec = (await office.letters.redrive(ANN, task_id, changes)).spec
    assert (spec.model_version, spec.priority, spec.timeout) == (2, Priority.HIGH, None)
    assert (await office.house.tasks.get(ANN, spec.task_id)).spec.deployment == "echo:2"


async def test_without_a_change_the_version_stays(office: Office) -> None:
    task_id = await office.fail()
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    assert (await office.letters.redrive(ANN, task_id)).spec.model_version == 1


async def test_a_redrive_that_fails_is_a_dead_letter_of_its_own(office: Office) -> None:
    task_id = await office.fail()
    receipt = await office.letters.redrive(ANN, task_id)
    leases = await office.house.replica.claim(10)
    await office.house.replica.fail([(lease, BOOM, Execution("w")) for lease in leases])
    await office.house.archive()
    assert await office.listed() == [receipt.task_id]
    third = await office.letters.redrive(ANN, receipt.task_id)
    assert third.spec.redrive_of == receipt.task_id
    again = await office.letters.redrive(ANN, task_id)
    assert (again.task_id, again.state) == (receipt.task_id, TaskState.FAILED)


async def test_a_large_input_gets_a_copy_that_outlives_the_dead_letters(office: Office) -> None:
    data = {"text": "x" * 5000}
    task_id = await office.fail(data=data)
    receipt = await office.letters.redrive(ANN, task_id)
    await office.house.store.delete([f"tasks/{task_id}/input.json"])
    (lease,) = await office.house.replica.claim(1)
    assert (lease.task_id, lease.spec.data) == (receipt.task_id, data)


async def test_a_dead_letter_whose_input_is_gone_cannot_be_redriven(office: Office) -> None:
    task_id = await office.fail(data={"text": "x" * 5000})
    await office.house.store.delete([f"tasks/{task_id}/input.json"])
    with pytest.raises(ConflictError, match="input was not kept"):
        await office.letters.redrive(ANN, task_id)
    assert await office.listed() == [task_id]
    assert (await office.letters.purge(ANN, task_id)).tasks == 1


async def test_a_version_that_does_not_take_the_input_refuses_it(office: Office) -> None:
    schema = {"type": "object", "required": ["image"]}
    await Registry(office.house.redis).put(msgspec.structs.replace(NEXT, input_schema=schema))
    await office.house.tasks.refresh()
    task_id = await office.fail(model_version=1)
    with pytest.raises(InvalidInputError):
        await office.letters.redrive(ANN, task_id, Changes(model_version=2))
    with pytest.raises(ModelNotFoundError):
        await office.letters.redrive(ANN, task_id, Changes(model_version=3))
    assert await office.listed() == [task_id]


async def test_a_full_queue_refuses_and_the_dead_letter_stays(office: Office) -> None:
    task_id = await office.fail(data={"text": "x" * 5000})
    for _ in range(office.house.settings.max_tenant_queue):
        await office.house.tasks.submit(ANN, Submission(data={}))
    with pytest.raises(TenantQueueFullError) as caught:
        await office.letters.redrive(ANN, task_id)
    assert caught.value.retry_after
    assert await office.listed() == [task_id]
    reserved = await office.stored.get(task_id)
    assert reserved is not None
    with pytest.raises(NotFoundError):
        await office.house.store.get(f"tasks/{reserved.redriven_as}/input.json")
    await office.house.work()
    receipt = await office.letters.redrive(ANN, task_id)
    assert receipt.task_id == reserved.redriven_as
    assert await office.copies(task_id) == [receipt.task_id]


async def test_after_a_refusal_another_version_may_be_chosen(office: Office) -> None:
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    task_id = await office.fail(model_version=1)
    await office.stored.reserve(task_id, new_task_id(ECHO.name), 1)
    receipt = await office.letters.redrive(ANN, task_id, Changes(model_version=2))
    assert receipt.spec.model_version == 2
    assert await office.copies(task_id) == [receipt.task_id]


async def test_many_are_redriven_and_one_refusal_sinks_none(office: Office) -> None:
    first, second = [await office.fail() for _ in range(2)]
    other = await office.fail(BOB)
    answers = await office.letters.redrive_all(ANN, [first, other, first, "nothing", second])
    assert [answer.task_id for answer in answers] == [first, other, "nothing", second]
    kinds = [type(answer.answer) for answer in answers]
    assert kinds == [Receipt, TaskNotFoundError, TaskNotFoundError, Receipt]


async def test_a_filter_redrives_what_failed_first(office: Office) -> None:
    failed = [await office.fail() for _ in range(4)]
    await office.fail(error=TaskError("invalid-input", "no"))
    wanted = LetterFilter(error="engine-error")
    answers = await office.letters.redrive_where(ANN, wanted, 3)
    assert [answer.task_id for answer in answers] == failed[:3]
    assert len(await office.listed()) == 2


# Once, whatever happens.


async def test_twenty_redrives_at_once_make_one_task(office: Office) -> None:
    task_id = await office.fail()
    other = Office(office.house)
    answers = await asyncio.gather(
        *(choice.letters.redrive(ANN, task_id) for choice in (office, other) * 10)
    )
    assert len({answer.task_id for answer in answers}) == 1
    assert sum(not answer.existing for answer in answers) == 1
    assert await office.copies(task_id) == [answers[0].task_id]


async def test_redrives_to_different_versions_at_once_make_one_task(office: Office) -> None:
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    task_id = await office.fail(model_version=1)
    other = Office(office.house)
    await asyncio.gather(
        *(
            choice.letters.redrive(ANN, task_id, Changes(model_version=version))
            for choice in (office, other)
            for version in (1, 2) * 5
        ),
        return_exceptions=True,
    )
    receipt = await office.letters.redrive(ANN, task_id)
    assert await office.copies(task_id) == [receipt.task_id]


async def test_a_crash_before_the_task_exists_leaves_its_id_to_the_next_redrive(
    office: Office,
) -> None:
    task_id = await office.fail()
    new_id = new_task_id(ECHO.name)
    await office.stored.reserve(task_id, new_id, 1)
    assert await office.listed() == [task_id]
    await office.forget()
    receipt = await office.letters.redrive(ANN, task_id)
    assert (receipt.task_id, receipt.existing) == (new_id, False)
    assert await office.copies(task_id) == [new_id]


async def _crash_after_enqueue(
    office: Office, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Redrives, and dies when the queue has the task but PostgreSQL does not know."""

    async def die(_: Held, new_id: str) -> None:
        raise StorageUnavailableError(new_id)

    with monkeypatch.context() as patch:
        patch.setattr(Held, "settle", die)
        with pytest.raises(StorageUnavailableError) as caught:
            await office.letters.redrive(ANN, task_id)
    assert await office.listed() == [task_id]
    return caught.value.detail


async def test_a_crash_after_the_task_exists_gives_it_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail(data={"text": "x" * 5000})
    new_id = await _crash_after_enqueue(office, task_id, monkeypatch)
    receipt = await office.letters.redrive(ANN, task_id)
    assert (receipt.task_id, receipt.existing) == (new_id, True)
    assert await office.listed() == []
    assert await office.copies(task_id) == [new_id]


async def test_idempotency_keys_may_expire_while_the_recorder_is_away(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    new_id = await _crash_after_enqueue(office, task_id, monkeypatch)
    await office.house.work()
    await office.forget_keys()
    receipt = await office.letters.redrive(ANN, task_id)
    assert (receipt.task_id, receipt.state) == (new_id, TaskState.COMPLETED)
    assert await office.copies(task_id) == [new_id]


async def test_the_recorder_heals_what_a_crash_left_and_a_purge_cannot_undo_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    new_id = await _crash_after_enqueue(office, task_id, monkeypatch)
    leases = await office.house.replica.claim(10)
    await office.house.replica.fail([(lease, BOOM, Execution("w")) for lease in leases])
    await office.house.archive()
    assert await office.listed() == [new_id]
    await office.letters.purge(ANN, new_id)
    await office.forget()
    with pytest.raises(NotADeadLetterError, match="removed since"):
        await office.letters.redrive(ANN, task_id)
    assert await office.copies(task_id) == []


async def _lose(office: Office) -> None:
    """Redis loses its disk, and the registry is filled again."""
    await office.house.redis.flushdb()
    await Registry(office.house.redis).put(ECHO)


async def test_a_redrive_that_redis_has_lost_is_done_again(office: Office) -> None:
    task_id = await office.fail()
    first = await office.letters.redrive(ANN, task_id)
    (asleep,) = await office.house.replica.claim(1)
    await _lose(office)
    again = await office.letters.redrive(ANN, task_id)
    assert (again.task_id, again.existing) == (first.task_id, False)
    assert (await office.letters.redrive(ANN, task_id)).existing
    (now,) = await office.house.replica.claim(1)
    run = Execution(office.house.replica.worker, 1.0, 2.0, 1)
    await office.house.replica.complete([(asleep, b'"late"', run)])
    await office.house.replica.complete([(now, b'"now"', run)])
    task = await office.house.tasks.get(ANN, first.task_id)
    assert bytes(task.result or b"") == b'"now"'
    assert await office.copies(task_id) == [first.task_id]
    assert await office.listed() == []


async def test_a_redrive_that_redis_has_lost_may_go_to_another_version(office: Office) -> None:
    task_id = await office.fail()
    first = await office.letters.redrive(ANN, task_id)
    await _lose(office)
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    again = await office.letters.redrive(ANN, task_id, Changes(model_version=2))
    assert (again.spec.model_version, again.existing) == (2, False)
    assert await office.copies(task_id) == [again.task_id] != [first.task_id]


async def test_a_redrive_that_is_archived_is_not_done_again(office: Office) -> None:
    task_id = await office.fail()
    first = await office.letters.redrive(ANN, task_id)
    await office.house.archive()
    await _lose(office)
    again = await office.letters.redrive(ANN, task_id)
    assert (again.task_id, again.existing) == (first.task_id, True)


async def test_a_task_cannot_come_and_go_while_a_redrive_looks(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    new_id = await _crash_after_enqueue(office, task_id, monkeypatch)
    await office.house.work()
    async with office.stored.held(task_id) as held:
        assert held is not None
        assert not held.letter.settled
        archiving = asyncio.create_task(office.house.archive())
        done, _ = await asyncio.wait([archiving], timeout=0.3)
        assert not done
        assert await office.house.history.get(new_id) is None
    await archiving
    settled = await office.stored.get(task_id)
    assert settled is not None
    assert settled.settled


async def test_a_lost_answer_of_the_queue_is_no_second_task(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    enqueue = TaskQueue.enqueue

    async def lost(*args: Any, **options: Any) -> Any:
        await enqueue(*args, **options)
        raise QueueUnavailableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(TaskQueue, "enqueue", lost)
        with pytest.raises(QueueUnavailableError):
            await office.letters.redrive(ANN, task_id)
    receipt = await office.letters.redrive(ANN, task_id)
    assert await office.copies(task_id) == [receipt.task_id]


async def test_a_redrive_that_is_on_its_way_does_not_arrive_beside_one_to_another_version(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    task_id = await office.fail(model_version=1)
    held_up: list[tuple[TaskQueue, Any]] = []

    async def lose(queue: TaskQueue, submits: Any, **_: Any) -> Any:
        held_up.append((queue, submits))
        raise QueueUnavailableError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(TaskQueue, "enqueue", lose)
        with pytest.raises(QueueUnavailableError):
            await office.letters.redrive(ANN, task_id)
    receipt = await office.letters.redrive(ANN, task_id, Changes(model_version=2))
    assert receipt.spec.model_version == 2
    ((queue, submits),) = held_up
    (late,) = await queue.enqueue(submits)
    assert late.status is Enqueued.OPEN
    assert await office.copies(task_id) == [receipt.task_id]


async def test_a_version_that_was_given_up_takes_a_later_redrive(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Registry(office.house.redis).put(NEXT)
    await office.house.tasks.refresh()
    task_id = await office.fail(model_version=1)

    lose = AsyncMock(side_effect=QueueUnavailableError("no answer"))
    with monkeypatch.context() as patch:
        patch.setattr(TaskQueue, "enqueue", lose)
        for version in (1, 2):
            with pytest.raises(QueueUnavailableError):
                await office.letters.redrive(ANN, task_id, Changes(model_version=version))
    receipt = await office.letters.redrive(ANN, task_id, Changes(model_version=1))
    assert (receipt.spec.model_version, receipt.existing) == (1, False)
    assert await office.copies(task_id) == [receipt.task_id]


async def test_a_redrive_that_stood_still_does_not_go_on(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    monkeypatch.setattr(redrive, "HOLD", -1)
    with pytest.raises(StorageUnavailableError, match="too long"):
        await office.letters.redrive(ANN, task_id)
    assert await office.copies(task_id) == []


async def test_postgresql_takes_the_lock_from_a_holder_that_stands_still(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    monkeypatch.setattr(database, "HOLD", 1)

    async def stand_still() -> None:
        async with office.stored.held(task_id) as still:
            assert still is not None
            async with office.stored.held(task_id) as next_one:
                assert next_one is not None
            await still.settle(new_task_id(ECHO.name))

    with pytest.raises(StorageUnavailableError):
        await stand_still()
    assert await office.listed() == [task_id]


async def test_a_second_recorder_does_not_bring_a_redriven_one_back(office: Office) -> None:
    task_id = await office.fail()
    old = (await office.letters.get(ANN, task_id)).letter.task
    await office.letters.redrive(ANN, task_id)
    await office.house.history.upsert([old, msgspec.structs.replace(old, version=99)])
    assert await office.listed() == []


async def test_many_redrives_of_one_tenant_do_not_hold_up_another(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [new_task_id(ECHO.name) for _ in range(10)]
    get, going_on, looking = storage.DeadLetters.get, asyncio.Event(), 0

    async def slow(self: storage.DeadLetters, task_id: str) -> Any:
        nonlocal looking
        if task_id in ids:
            looking += 1
            await going_on.wait()
        return await get(self, task_id)

    monkeypatch.setattr(storage.DeadLetters, "get", slow)
    many = asyncio.create_task(office.letters.redrive_all(ANN, ids))
    async with asyncio.timeout(10):
        while not looking:
            await asyncio.sleep(0.01)
        with pytest.raises(TaskNotFoundError):
            await office.letters.redrive(BOB, new_task_id(ECHO.name))
    going_on.set()
    assert len(await many) == 10


# Purging.


HELLO = Submission(data={"text": "hello"})


async def test_the_key_of_a_purged_task_makes_a_new_one(office: Office) -> None:
    tasks = office.house.tasks
    ids = []
    for _ in range(2):
        receipt = await tasks.submit(ANN, HELLO, idempotency_key="k")
        ids.append(receipt.spec.task_id)
        leases = await office.house.replica.claim(10)
        await office.house.replica.fail([(lease, BOOM, Execution("w")) for lease in leases])
        await office.house.archive()
        await office.letters.purge(ANN, ids[-1])
    waited = await tasks.run(ANN, HELLO, 0.05, idempotency_key="k")
    assert isinstance(waited, Receipt)
    assert not waited.existing
    again = await tasks.submit(ANN, HELLO, idempotency_key="k")
    assert again.existing
    assert again.spec.task_id == waited.spec.task_id
    assert len({*ids, waited.spec.task_id}) == 3


async def test_a_purged_dead_letter_is_gone_with_its_input(office: Office) -> None:
    task_id = await office.fail(data={"text": "x" * 5000})
    assert await office.letters.purge(ANN, task_id) == (1, False)
    with pytest.raises(NotFoundError):
        await office.house.store.get(f"tasks/{task_id}/input.json")
    with pytest.raises(TaskNotFoundError):
        await office.house.tasks.get(ANN, task_id)
    for call in (office.letters.get, office.letters.redrive, office.letters.purge):
        with pytest.raises(TaskNotFoundError):
            await call(ANN, task_id)


async def test_a_purge_that_died_halfway_is_repeated(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail(data={"text": "x" * 5000})

    async def die(*_: Any) -> None:
        raise StorageUnavailableError

    with monkeypatch.context() as patch:
        patch.setattr(storage.DeadLetters, "delete", die)
        with pytest.raises(StorageUnavailableError):
            await office.letters.purge(ANN, task_id)
    assert await office.listed() == [task_id]
    assert await office.letters.purge(ANN, task_id) == (1, False)


async def test_one_redriven_while_a_purge_looks_stays(office: Office) -> None:
    task_id = await office.fail()
    (seen,) = await office.stored.purgeable("ann", ALL, 10)
    await office.letters.redrive(ANN, task_id)
    assert await office.letters._remove([seen]) == 0
    assert await office.house.history.get(task_id) is not None


async def test_one_purged_while_a_redrive_looks_is_not_redriven(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = await office.fail()
    reserve = storage.DeadLetters.reserve

    async def purged_then(*args: Any) -> None:
        await office.letters.purge(ANN, task_id)
        await reserve(*args)

    monkeypatch.setattr(storage.DeadLetters, "reserve", purged_then)
    with pytest.raises(NotADeadLetterError, match="purged"):
        await office.letters.redrive(ANN, task_id)
    assert await office.copies(task_id) == []


async def test_thousands_are_purged_in_bounded_steps(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [
        TaskSpec(task_id=new_task_id(ECHO.name), model="echo", model_version=1, tenant="ann")
        for _ in range(2100)
    ]
    await office.house.history.upsert([_failed(spec, n) for n, spec in enumerate(specs)])
    steps: list[int] = []
    delete = storage.DeadLetters.delete

    async def counted(self: storage.DeadLetters, task_ids: list[str]) -> set[str]:
        steps.append(len(task_ids))
        return await delete(self, task_ids)

    monkeypatch.setattr(storage.DeadLetters, "delete", counted)
    assert await office.letters.purge_where(ANN, LetterFilter(before=1e9 + 1000), 300) == (
        300,
        True,
    )
    assert await office.listed(wanted=LetterFilter(before=1e9 + 300)) == []
    assert await office.letters.purge_where(ANN, LetterFilter(before=1e9 + 1000), 10_000) == (
        700,
        False,
    )
    assert await office.letters.purge_where(ANN, LetterFilter(error="other"), 10_000) == (0, False)
    assert await office.letters.purge_where(ANN, ALL, 10_000) == (1100, False)
    assert max(steps) == dead_letters.STEP


async def test_retention_removes_redriven_tasks_too(office: Office) -> None:
    old = new_task_id(ECHO.name)
    aged = f"0190{old[4:]}"
    spec = TaskSpec(
        task_id=aged,
        model="echo",
        model_version=1,
        tenant="ann",
        data=msgspec.Raw(b'{"a":1}'),
    )
    await office.house.history.upsert([_failed(spec, 0)])
    await office.letters.redrive(ANN, aged)
    assert await remove_old_tasks(office.house.history, office.house.store, 30.0) == 1
    with pytest.raises(TaskNotFoundError):
        await office.letters.redrive(ANN, aged)


def _failed(spec: TaskSpec, number: int) -> Task:
    return Task(
        spec=spec,
        state=TaskState.FAILED,
        version=3,
        created_at=1e9,
        completed_at=1e9 + number,
        error=BOOM,
    )
