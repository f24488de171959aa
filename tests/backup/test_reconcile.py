"""Redis as it was, and history as it is a moment later."""

import msgspec
import pytest

from inferstack.lifecycle import recovery
from inferstack.lifecycle.reconcile import reconcile
from inferstack.queue.codec import encode
from inferstack.queue.outbox import Outbox
from inferstack.queue.registry import Registry
from inferstack.queue.task_queue import prefix
from inferstack.queue.types import Completion
from inferstack.recorder.recorder import Recorder
from inferstack.storage.dead_letters import DeadLetters, LetterFilter
from inferstack.storage.history import History
from inferstack.storage.models import Models
from inferstack.task import Execution, Task, TaskState, new_task_id
from tests.backup.conftest import Services
from tests.recorder.work import NAME
from tests.storage.samples import completed, queued


async def archived(services: Services) -> History:
    """History once the recorder has caught up."""
    history = History(services.database)
    recorder = Recorder(Outbox(services.redis, [NAME], services.settings), history, linger=0.0)
    while await recorder.step(1):
        pass
    return history


async def task(services: Services, task_id: str) -> Task:
    found = await services.work.queue.get(task_id)
    assert found is not None
    return found


@pytest.mark.parametrize("registered", [True, False])
async def test_a_result_that_history_holds_stands_and_is_not_computed_again(
    old: Services, registered: bool
) -> None:
    if not registered:
        # As when its folder is gone: it runs on once that is back.
        await Models(old.database).upsert(await Registry(old.redis).all())
        await Registry(old.redis).remove(NAME)
    (waiting,) = await old.work.submit(1)
    (leased,) = await old.work.submit(1)
    rest = await old.work.submit(2)
    (claim,) = await old.work.queue.claim("host:1:a", 1)
    running, done = claim.task_id, msgspec.Raw(b'{"first":true}')
    history = await archived(old)
    ended = [
        msgspec.structs.replace(
            await task(old, task_id),
            state=TaskState.COMPLETED,
            version=9,
            completed_at=1_790_000_000.0,
            result=done,
        )
        for task_id in {waiting, leased, running}
    ]
    await history.upsert(ended)

    assert await reconcile(old.redis, old.database) == 2
    assert set(await old.work.finish()) == set(rest)
    late = Completion(running, claim.attempt, b'{"again":true}', "", encode(Execution("host:1:a")))
    assert await old.work.queue.complete("host:1:a", [late]) == ["stale"]
    await archived(old)
    for task_id in (waiting, leased):
        kept = await history.get(task_id)
        assert kept is not None
        assert (kept.state, kept.result) == (TaskState.COMPLETED, done)
        assert await old.work.queue.get(task_id) is None
    for index in ("w:normal", "lease", "deadline"):
        assert await old.redis.zcard(f"{prefix(NAME)}{index}") == 0, index
    assert await old.redis.hlen(f"{prefix(NAME)}tenants") == 0
    assert await old.redis.hget(f"{prefix(NAME)}meta", "outbox") == b"0"


async def test_a_task_that_history_saw_go_further_is_archived_all_the_same(old: Services) -> None:
    (task_id,) = await old.work.submit(1)
    history = await archived(old)
    ahead = msgspec.structs.replace(
        await task(old, task_id), state=TaskState.RUNNING, version=12, attempts=6
    )
    await history.upsert([ahead])
    assert await reconcile(old.redis, old.database) == 1
    await old.work.finish(b'{"n":1}')
    await archived(old)
    kept = await history.get(task_id)
    assert kept is not None
    assert (kept.state, kept.version, kept.attempts) == (TaskState.COMPLETED, 3, 1)
    assert kept.result == msgspec.Raw(b'{"n":1}')


async def test_an_unfinished_task_that_redis_never_had_is_queued_by_the_recovery(
    old: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AGE", -60.0)
    key = "tasks/x/input.json"
    await old.store.put(key, b"{}")
    (lost,) = await old.work.submit(1, data=None, data_ref=key)
    (before,) = await old.work.queue.claim("host:1:a", 1)
    (kept,) = await old.work.submit(1)
    history = await archived(old)
    await old.redis.delete(f"{prefix(NAME)}t:{lost}")
    await old.redis.zrem(f"{prefix(NAME)}lease", lost)
    assert await reconcile(old.redis, old.database) == 1
    assert await recovery.Recovery(old.redis, old.database, old.settings).run() == 1
    claims = await old.work.queue.claim("host:1:a", 2)
    late = Completion(lost, before.attempt, b'"late"', "", encode(Execution("host:1:a")))
    assert await old.work.queue.complete("host:1:a", [late]) == ["stale"]
    await old.work.queue.release("host:1:a", [(claim.task_id, claim.attempt) for claim in claims])
    assert set(await old.work.finish(b'{"n":1}')) == {lost, kept}
    await archived(old)
    for task_id in (lost, kept):
        ended = await history.get(task_id)
        assert ended is not None
        assert (ended.state, ended.result) == (TaskState.COMPLETED, msgspec.Raw(b'{"n":1}'))


async def test_what_redis_has_finished_is_archived(old: Services) -> None:
    (task_id,) = await old.work.submit(1)
    history = await archived(old)
    await old.work.finish(b'{"n":1}')
    assert await reconcile(old.redis, old.database) == 0
    await archived(old)
    kept = await history.get(task_id)
    assert kept is not None
    assert kept.state is TaskState.COMPLETED


async def test_what_was_redriven_after_redis_was_asked_is_a_dead_letter_again(
    old: Services, caplog: pytest.LogCaptureFixture
) -> None:
    letters = DeadLetters(old.database)
    history = History(old.database)
    dead = [completed(state=TaskState.FAILED, result=None) for _ in range(4)]
    await history.upsert(dead)
    lost, waiting, archived_too, purged = (item.spec.task_id for item in dead)
    new = {item.spec.task_id: new_task_id(NAME) for item in dead}
    (new[waiting],) = await old.work.submit(1, redrive_of=waiting)
    copies = [
        completed(queued(task_id=new[archived_too], redrive_of=archived_too)),
        completed(
            queued(task_id=new[purged], redrive_of=purged), state=TaskState.FAILED, result=None
        ),
    ]
    for task_id, new_id in new.items():
        await letters.reserve(task_id, new_id, 1)
        async with letters.held(task_id) as held:
            assert held is not None
            await held.settle(new_id)
    await history.upsert(copies)
    assert await letters.delete([new[purged]]) == {new[purged]}

    for _ in range(2):
        await reconcile(old.redis, old.database)
        page = await letters.list(None, LetterFilter(), 10, None)
        assert [letter.task.spec.task_id for letter in page.letters] == [lost]
    assert caplog.text.count("1 tasks are dead letters again") == 1
