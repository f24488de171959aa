"""History, Redis and the object store, held against what clients were promised: I1 to I6.

It looks once at everything that a test has made, however much that is, and judges task by task.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import psycopg
import redis

from inferstack.queue.codec import Record, decode_record, decode_task
from inferstack.task import TERMINAL, Task, TaskState
from tests.faults.promises import Promises

ROUNDING_MS = 2.0
"""Redis tells times in whole milliseconds."""
OURS = "(created_at >= to_timestamp(%s) OR id = ANY(%s::uuid[]))"
"""Also what nobody was told of: there must be nothing that nobody has submitted."""
COLUMNS = (
    "id::text, state, state_version, attempts, crashes, error, input, input_ref, result,"
    " result_ref, worker, batch_size, compute_ms,"
    " extract(epoch FROM now() - completed_at)::float8"
)
FIELDS = ("s", "spec", "ex", "err", "res", "ref")
INDEXES = ("w:high", "w:normal", "w:low", "delay", "lease", "deadline")


class Row(NamedTuple):
    """A task in history."""

    task_id: str
    state: str
    version: int
    attempts: int
    crashes: int
    error: dict[str, Any] | None
    input: Any
    input_ref: str | None
    result: Any
    result_ref: str | None
    worker: str | None
    """The replica whose attempt ended it."""
    batch_size: int | None
    compute_ms: float | None
    age: float | None
    """Seconds since its end."""


class Live(NamedTuple):
    """A task in Redis."""

    record: Record
    task: Task


class Spoiled(NamedTuple):
    """What is read in place of an object that is not there, or is no JSON."""

    why: str


def audit(promises: Promises, redis_url: str, database_url: str, until: float) -> list[Row]:
    """Waits until everything has ended and is archived, then judges; returns what is archived.

    Args:
        promises: of the test; violations go there.
        redis_url: of the queue.
        database_url: of history.
        until: by the monotonic clock, when it must be over (I6).
    """
    _wait(lambda: _archived(promises, database_url), until)
    # In this order: what is young in history by then must have been in Redis.
    live = _live(promises, redis_url)
    rows = _rows(promises, database_url)
    judge(promises, rows, live)
    left: list[dict[str, int]] = []
    _wait(lambda: _empty(promises.model, redis_url, left), until)
    if left:
        promises.wrong(f"I5: left over: {left[-1]}")
    return rows


def judge(promises: Promises, rows: Sequence[Row], live: Mapping[str, Live]) -> None:
    """Holds what was found against what was promised.

    Args:
        promises: violations go there.
        rows: history, as far as it is of this test.
        live: what Redis still has of the accepted tasks.
    """
    tasks: Counter[str] = Counter()
    for row in rows:
        payload = _payload(promises, row)
        if payload not in promises.submitted:
            promises.wrong(f"I3: nobody has submitted {row.task_id}", doubled=row.task_id)
            continue
        tasks[payload] += 1
        _judge_row(promises, row, payload)
        if row.task_id in live:
            _judge_live(promises, row, live[row.task_id])
        elif (
            promises.steady
            and row.task_id in promises.accepted
            and (row.age or 0.0) < promises.kept
        ):
            what = f"I1: {row.task_id} is gone from Redis after {row.age} s"
            promises.wrong(what, lost=row.task_id)
    for payload in (payload for payload, times in tasks.items() if times > 1):
        promises.wrong(f"I3: {payload} is more than one task", doubled=payload)
    for task_id in promises.accepted.keys() - {row.task_id for row in rows}:
        promises.wrong(f"I6: {task_id} is not archived", lost=task_id)


def _payload(promises: Promises, row: Row) -> str:
    """By which its submit is known; a spoiled input is no stranger's."""
    data = _body(promises, row.input, row.input_ref)
    found = data.get("payload") if isinstance(data, dict) else None
    return str(found or promises.accepted.get(row.task_id))


def _judge_row(promises: Promises, row: Row, payload: str) -> None:
    task_id = row.task_id
    if payload in promises.denied:
        promises.wrong(f"I3: {task_id} was refused and is there", doubled=task_id)
    data, wanted = _body(promises, row.input, row.input_ref), promises.submitted[payload]
    result = _body(promises, row.result, row.result_ref)
    if spoiled := [each for each in (data, result) if isinstance(each, Spoiled)]:
        promises.wrong(f"I2: {task_id} refers to {spoiled}", lost=task_id)
        return
    if data != wanted.data or promises.accepted.get(task_id, payload) != payload:
        what = f"I2: {task_id} has the input of something else: {str(data)[:200]}"
        promises.wrong(what, lost=task_id)
    promises.judge(task_id, payload, row.state, row.error, result, " in history")
    if (seen := promises.seen.get(task_id)) is not None:
        told = (seen.status, seen.attempts, seen.error and seen.error.type)
        kept = (row.state, row.attempts, row.error and row.error["type"])
        if told != kept:
            promises.wrong(f"I2: {task_id} was {told} and is {kept} in history", doubled=task_id)


def _judge_live(promises: Promises, row: Row, live: Live) -> None:
    task, run = live.task, live.task.execution
    there = row._replace(
        state=task.state,
        version=task.version,
        attempts=task.attempts,
        crashes=task.crashes,
        error=msgspec.to_builtins(task.error),
        result=None if task.result is None else msgspec.json.decode(task.result),
        result_ref=task.result_ref,
        worker=None if run is None else run.worker,
        batch_size=None if run is None else run.batch_size,
    )
    if there != row:
        what = f"I2: {row.task_id} is {there} in Redis and {row} in history"
        promises.wrong(what, doubled=row.task_id)
    if task.state is TaskState.COMPLETED and (why := list(_stale(promises, row.task_id, live))):
        promises.wrong(f"I4: {row.task_id}: {'; '.join(why)}", doubled=row.task_id)


def _stale(promises: Promises, task_id: str, live: Live) -> Iterator[str]:
    """What shows that another attempt than the one claimed last has completed a task.

    The record keeps number, replica and time of the latest claim. The result says which replica
    has computed it and how long that took, and a large one lies under the number of its attempt.
    """
    record, task = live
    run = task.execution
    assert run is not None, "a completion says how it ran"
    if run.worker != record.worker:
        yield f"{run.worker} completed it when {record.worker} held it"
    named = f"tasks/{task_id}/result-{record.attempt}-{record.worker}-"
    if not (task.result_ref or named).startswith(named):
        yield f"{task.result_ref} is its result when {record.attempt} was claimed"
    since = record.completed - record.started
    if promises.steady and run.compute_ms > since + ROUNDING_MS:
        yield f"it was computed in {run.compute_ms} ms, and completed {since} ms after its claim"


def _body(promises: Promises, inline: Any, ref: str | None) -> Any:
    """An input or a result, wherever it lies."""
    if ref is None or promises.objects is None:
        return inline
    try:
        return msgspec.json.decode((promises.objects / ref).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        return Spoiled(f"{ref}: {error}")


def _wait(condition: Callable[[], bool], until: float) -> None:
    """Services may be on their way back: whether they answer is part of the condition."""
    while not _met(condition) and time.monotonic() < until:
        time.sleep(0.1)


def _met(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (psycopg.OperationalError, redis.ConnectionError):
        return False


def _query(promises: Promises, database_url: str, columns: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url, connect_timeout=5) as connection:
        query = f"SELECT {columns} FROM tasks WHERE {OURS}"
        return connection.execute(
            query.encode(), (promises.began, list(promises.accepted))
        ).fetchall()


def _archived(promises: Promises, database_url: str) -> bool:
    states = dict(_query(promises, database_url, "id::text, state"))
    return promises.accepted.keys() <= states.keys() and TERMINAL.issuperset(states.values())


def _rows(promises: Promises, database_url: str) -> list[Row]:
    return [Row(*values) for values in _query(promises, database_url, COLUMNS)]


def _live(promises: Promises, redis_url: str) -> dict[str, Live]:
    ids = list(promises.accepted)
    with redis.Redis.from_url(redis_url) as client, client.pipeline(transaction=False) as calls:
        for task_id in ids:
            calls.hmget(f"is:{{{promises.model}:1}}:t:{task_id}", list(FIELDS))
        rows = calls.execute()
    return {
        task_id: Live(decode_record(row[0]), task)
        for task_id, row in zip(ids, rows, strict=True)
        if (task := decode_task(row)) is not None
    }


def _empty(model: str, redis_url: str, left: list[dict[str, int]]) -> bool:
    """Whether nothing is in any index or counter; `left` holds what is."""
    start = f"is:{{{model}:1}}:"
    with redis.Redis.from_url(redis_url) as client:
        found = {name: client.zcard(start + name) for name in INDEXES}
        found |= {name: client.hlen(start + name) for name in ("tenants", "tags")}
        found["out"] = client.xlen(start + "out")
        found["outbox"] = int(client.hget(start + "meta", "outbox") or 0)
    more = {name: count for name, count in found.items() if count}
    left[:] = [more] if more else []
    return not more
