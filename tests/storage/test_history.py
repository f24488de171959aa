import asyncio
import json
from typing import Any

import msgspec
import psycopg
import pytest

from inferstack.errors import InvalidRequestError, StorageUnavailableError
from inferstack.storage import archive
from inferstack.storage.database import Database
from inferstack.storage.history import History, HistoryFilter
from inferstack.task import Execution, Priority, Task, TaskError, TaskState
from tests.services import free_port
from tests.storage.samples import NOW, completed, queued


def body(raw: Any) -> Any:
    assert isinstance(raw, msgspec.Raw)
    return json.loads(bytes(raw))


async def stored(history: History, task: Task) -> Task:
    await history.upsert([task])
    found = await history.get(task.spec.task_id)
    assert found is not None
    return found


async def test_a_task_comes_back_as_it_was(history: History) -> None:
    spec: dict[str, Any] = {
        "data": {"text": "né"},
        "priority": Priority.HIGH,
        "timeout": 2.5,
        "cost": 7.0,
    }
    spec |= {"user": "ann", "webhook": "https://x.example/h", "metadata": {"a": [1, None]}}
    spec |= {"idempotency_key": "k", "trace": "00-ab-cd-01"}
    task = completed(queued(**spec), crashes=1)
    found = await stored(history, task)
    assert body(found.spec.data) == task.spec.data
    assert body(found.result) == {"x": 1}
    plain = {"data": None}
    assert msgspec.structs.replace(found.spec, **plain) == msgspec.structs.replace(
        task.spec, **plain
    )
    assert msgspec.structs.replace(found, spec=task.spec, result=task.result) == task


async def test_what_a_task_does_not_have_stays_absent(history: History) -> None:
    found = await stored(history, queued(timeout=None, data=None, data_ref="tasks/x/input.json"))
    assert found.spec.timeout is None
    assert found.spec.data_ref == "tasks/x/input.json"
    empty = (found.spec.data, found.result, found.error, found.execution, found.started_at)
    assert empty == (None,) * 5


async def test_a_failed_task_keeps_its_error_and_traceback(history: History) -> None:
    error = TaskError("engine-error", "it broke", retryable=True, traceback="line 1\nline 2")
    failed = completed(state=TaskState.FAILED, error=error, result=None)
    assert (await stored(history, failed)).error == error


async def test_a_later_version_replaces_and_an_earlier_one_does_not(history: History) -> None:
    task = queued()
    await history.upsert([task])
    await history.upsert([completed(task)])
    await history.upsert([task])
    found = await history.get(task.spec.task_id)
    assert found is not None
    assert found.state is TaskState.COMPLETED
    await history.upsert([completed(task, b'"other"')])
    assert body((await stored(history, completed(task, b'"other"'))).result) == {"x": 1}


@pytest.mark.parametrize("later", [TaskState.RUNNING, TaskState.COMPLETED, TaskState.FAILED])
async def test_the_end_of_a_task_stands_whatever_a_redis_that_forgot_it_says(
    history: History, later: TaskState
) -> None:
    task = queued()
    done = await stored(history, completed(task))
    assert await history.upsert([completed(task, b'"other"', state=later, version=9)]) == set()
    assert await history.get(task.spec.task_id) == done


async def test_a_task_that_redis_got_again_was_made_when_it_was_made_first(
    history: History,
) -> None:
    task = queued()
    await history.upsert([task])
    again = msgspec.structs.replace(task, version=2, created_at=task.created_at + 100)
    await history.upsert([again])
    await history.upsert([completed(again)])
    found = await history.get(task.spec.task_id)
    assert found is not None
    assert (found.state, found.created_at) == (TaskState.COMPLETED, task.created_at)


async def test_the_end_of_a_task_counts_whatever_its_version(history: History) -> None:
    task = queued()
    await history.upsert([msgspec.structs.replace(task, state=TaskState.RUNNING, version=6)])
    ended = msgspec.structs.replace(task, state=TaskState.CANCELLED, version=2)
    assert await history.upsert([ended]) == {task.spec.task_id}
    assert (await stored(history, task)).state is TaskState.CANCELLED


async def test_an_upsert_tells_what_it_wrote(history: History) -> None:
    first, second, refused = queued(), queued(), completed(result=b"{")
    ids = [task.spec.task_id for task in (first, second, refused)]
    assert await history.upsert([first, first]) == {ids[0]}
    assert await history.upsert([first, completed(first), second]) == {ids[0], ids[1]}
    assert await history.upsert([completed(first), second, refused]) == {ids[2]}
    assert await history.upsert([completed(queued(task_id="not-a-uuid"))]) == set()


async def test_one_batch_may_hold_several_versions_of_a_task(history: History) -> None:
    task = queued()
    await history.upsert([task, completed(task), task])
    found = await history.get(task.spec.task_id)
    assert found is not None
    assert found.state is TaskState.COMPLETED


async def test_an_empty_batch_stores_nothing(history: History) -> None:
    await history.upsert([])
    assert (await history.list(None, HistoryFilter())).tasks == []


async def test_queue_time_is_kept_for_reports(history: History, clean_postgres_url: str) -> None:
    await history.upsert([completed()])
    with psycopg.connect(clean_postgres_url) as connection:
        row = connection.execute("SELECT queue_ms, extract(epoch FROM completed_at) FROM tasks")
        queue_ms, at = row.fetchall()[0]
    assert queue_ms == pytest.approx(250, abs=0.01)
    assert float(at) == pytest.approx(NOW + 1.5, abs=1e-5)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":"\\u0000"}',
        b'"\\ud800"',
        b'{"n":' + b"9" * 400 + b"}",
        b"1e400",
        b'{"a":1,"a":2}',
        '{"é":"\U0001f600"}'.encode(),
        b"[" * 500 + b"]" * 500,
        b'"' + b"x" * 300_000 + b'"',
    ],
    ids=["nul", "surrogate", "huge-int", "huge-float", "same-key", "unicode", "deep", "long"],
)
async def test_any_json_result_comes_back_byte_for_byte(history: History, raw: bytes) -> None:
    found = await stored(history, completed(result=raw))
    assert found.result is not None
    assert bytes(found.result) == raw


@pytest.mark.parametrize(
    "value", [{"a": "\0"}, {"a": "\ud800"}, {"n": 2**200}, {"n": -(2**70)}, {"": [[[]]]}]
)
async def test_any_input_comes_back(history: History, value: Any) -> None:
    found = await stored(history, queued(data=value, metadata=value))
    assert body(found.spec.data) == value
    assert found.spec.metadata == value


async def test_texts_that_postgresql_cannot_hold_are_cleaned(history: History) -> None:
    found = await stored(history, queued(webhook="a\0b", user="x\ud800y", idempotency_key="\0"))
    assert (found.spec.webhook, found.spec.user) == ("a\ufffdb", "x?y")
    assert found.spec.idempotency_key == "\ufffd"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"result": b"[" * 200_000 + b"]" * 200_000}, "stack depth"),
        ({"result": b"{broken"}, "json"),
        ({"result": b'"\xff"'}, "byte sequence"),
        ({"data": nested(100_000)}, "recursion"),
    ],
    ids=["too-deep", "no-json", "no-utf8", "too-deep-input"],
)
async def test_a_refused_row_loses_its_bodies_and_harms_no_other(
    history: History, part: dict[str, Any], reason: str
) -> None:
    data = {"data": part["data"]} if "data" in part else {}
    result = {"result": part["result"]} if "result" in part else {}
    bad = completed(queued(**data), **result)
    good = [completed() for _ in range(20)]
    await history.upsert([*good[:10], bad, *good[10:]])
    for task in good:
        found = await history.get(task.spec.task_id)
        assert found is not None
        assert found.result is not None
    found = await history.get(bad.spec.task_id)
    assert found is not None
    assert (found.state, found.result, found.spec.data) == (TaskState.COMPLETED, None, None)
    assert found.error is not None
    assert found.error.type == "not-archived"
    assert reason in found.error.message.lower()


async def test_a_refused_failed_task_keeps_its_own_error(history: History) -> None:
    error = TaskError("engine-error", "it broke", retryable=True)
    bad = completed(state=TaskState.FAILED, error=error, result=b"{")
    found = (await stored(history, bad)).error
    assert found is not None
    assert (found.type, found.retryable) == ("engine-error", True)
    assert found.message.startswith("it broke; input and result are not kept: ")


async def test_a_task_without_a_place_in_the_table_blocks_nobody(
    history: History, caplog: pytest.LogCaptureFixture
) -> None:
    good = completed()
    await history.upsert([completed(queued(task_id="not-a-uuid")), good, completed(attempts=2**40)])
    assert await history.get(good.spec.task_id) is not None
    assert caplog.text.count("cannot be archived") == 2


async def test_a_batch_that_breaks_off_between_its_halves_is_completed_by_its_repetition(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By id, which is the order they are stored in: the second half holds the row to blame.
    tasks = sorted([completed() for _ in range(4)], key=lambda task: task.spec.task_id)
    tasks[-1] = msgspec.structs.replace(tasks[-1], result=msgspec.Raw(b"{"))
    insert = archive._insert

    async def breaks(connection: Any, part: Any) -> set[str]:
        if part == tasks[2:]:
            raise StorageUnavailableError
        return await insert(connection, part)

    with monkeypatch.context() as broken:
        broken.setattr(archive, "_insert", breaks)
        with pytest.raises(StorageUnavailableError):
            await history.upsert(tasks)
    kept = [await history.get(task.spec.task_id) is not None for task in tasks]
    assert kept == [True, True, False, False]
    await history.upsert(tasks)
    assert all([await history.get(task.spec.task_id) is not None for task in tasks])


async def test_a_database_that_is_down_refuses_the_whole_batch() -> None:
    database = Database(f"postgresql://a:b@127.0.0.1:{free_port()}/x")
    with pytest.raises(StorageUnavailableError):
        await History(database).upsert([completed()])
    await database.close()


async def test_two_recorders_with_the_same_tasks_do_no_harm(history: History) -> None:
    tasks = [queued() for _ in range(300)]
    done = [completed(task) for task in tasks]
    batches = [tasks, done, done[::-1], tasks[::-1], done]
    await asyncio.gather(*(history.upsert(batch) for batch in batches))
    found = await history.list(None, HistoryFilter(status=TaskState.COMPLETED, limit=200))
    assert len(found.tasks) == 200


@pytest.mark.parametrize("task_id", ["", "x" * 36, "a" * 200, "\0" * 36])
async def test_an_id_that_is_none_is_not_found(history: History, task_id: str) -> None:
    assert await history.get(task_id) is None


async def test_pages_cover_every_task_once_newest_first(history: History) -> None:
    tasks = [queued() for _ in range(25)]
    await history.upsert(tasks)
    await history.upsert([queued(tenant="other")])
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        page = await history.list("acme", HistoryFilter(limit=10, cursor=cursor))
        seen += [task.spec.task_id for task in page.tasks]
        cursor = page.next_cursor
        pages += 1
    assert pages == 3
    assert seen == sorted((task.spec.task_id for task in tasks), reverse=True)


async def test_a_full_last_page_has_no_next(history: History) -> None:
    await history.upsert([queued() for _ in range(10)])
    assert (await history.list("acme", HistoryFilter(limit=10))).next_cursor is None


async def test_lists_leave_bodies_out(history: History) -> None:
    await history.upsert([completed(queued(metadata={"a": 1}))])
    (task,) = (await history.list("acme", HistoryFilter())).tasks
    assert (task.spec.data, task.result, task.spec.metadata) == (None, None, {"a": 1})
    assert task.execution == Execution("host:1:a", 1.25, 2.5, 32)


async def test_filters_narrow_the_list(history: History) -> None:
    old = msgspec.structs.replace(queued(), created_at=NOW - 10)
    high = queued(model="minilm", priority=Priority.HIGH)
    done, failed = completed(), completed(state=TaskState.FAILED, result=None)
    await history.upsert([old, high, done, failed])

    async def ids(tenant: str | None = "acme", **filter: Any) -> set[str]:
        page = await history.list(tenant, HistoryFilter(**filter))
        return {task.spec.task_id for task in page.tasks}

    assert await ids(status=TaskState.FAILED) == {failed.spec.task_id}
    assert await ids(status=TaskState.COMPLETED) == {done.spec.task_id}
    assert await ids(model="minilm") == {high.spec.task_id}
    assert await ids(priority=Priority.HIGH) == {high.spec.task_id}
    assert old.spec.task_id not in await ids(since=NOW - 5)
    assert await ids("nobody") == set()
    assert len(await ids(None)) == 4


@pytest.mark.parametrize(
    "filter", [{"cursor": "x"}, {"cursor": "\0"}, {"since": 1e300}, {"since": float("nan")}]
)
async def test_nonsense_in_a_filter_is_an_invalid_request(
    history: History, filter: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await history.list(None, HistoryFilter(**filter))
    assert raised.value.errors is not None
    assert raised.value.errors[0]["field"] == next(iter(filter))


async def test_a_nul_in_a_filter_is_an_invalid_request(history: History) -> None:
    with pytest.raises(InvalidRequestError):
        await history.list("acme", HistoryFilter(model="a\0"))


async def test_listing_what_failed_uses_the_small_index(
    history: History, clean_postgres_url: str
) -> None:
    await history.upsert([completed() for _ in range(50)])
    with psycopg.connect(clean_postgres_url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            "EXPLAIN SELECT id FROM tasks WHERE tenant = 'acme' AND state = 'failed' "
            "AND state <> 'completed' ORDER BY id DESC LIMIT 10"
        ).fetchall()
    assert "tasks_tenant_state_id" in str(plan)


async def test_an_id_written_in_another_way_finds_nothing(history: History) -> None:
    """Redis would not find it either, and a stale row would pass for the task."""
    task = queued()
    await history.upsert([task])
    task_id = task.spec.task_id
    digits = task_id.replace("-", "")
    moved = f"{digits[:9]}-{digits[9:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    for written in (moved, task_id.upper(), f"urn:{digits}"):
        assert await history.get(written) is None
    assert await history.get(task_id) is not None
