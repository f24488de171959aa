"""Between a Task and its row, in the binary format of PostgreSQL.

A batch of tasks travels as one array for each column, into one
`INSERT ... SELECT FROM unnest(...) ON CONFLICT`. Measured with 500 rows of 300 / 5000 bytes on
2 cores with PostgreSQL 15, microseconds of CPU a row, ours + PostgreSQL's:

    unnest of binary arrays                5.0 + 8   /  8.6 + 30
    binary COPY to a temporary table       5.9 + 10  /  8.7 + 25
    psycopg's COPY rows, same table        8.2 + 9   / 12.4 + 32
    one JSON document, json_to_recordset   3.5 + 14  /  5.9 + 53
    binary COPY, no upsert possible        5.5 + 6   /  7.8 + 28

`unnest` needs one round trip and no temporary table, which would grow the system catalogue.
`json_to_recordset` also unescapes every string, and so refuses a result with an escaped NUL.
Format: https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES
"""

import json
import struct
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec

from inferstack.task import Execution, Priority, Task, TaskError, TaskSpec, TaskState

NULL = b"\xff\xff\xff\xff"
POSTGRES_EPOCH = 946_684_800
"""2000-01-01 UTC in Unix seconds: where PostgreSQL counts its microseconds from."""

OIDS = {"uuid": 2950, "text": 25, "json": 114, "int4": 23, "int8": 20}
OIDS |= {"float4": 700, "float8": 701, "timestamptz": 1184}

COLUMNS: dict[str, str] = {
    "id": "uuid",
    "tenant": "text",
    "user_name": "text",
    "model": "text",
    "model_version": "int8",
    "priority": "text",
    "state": "text",
    "state_version": "int8",
    "attempts": "int4",
    "crashes": "int4",
    "cost": "float8",
    "timeout": "float8",
    "created_at": "timestamptz",
    "started_at": "timestamptz",
    "completed_at": "timestamptz",
    "queue_ms": "float4",
    "batch_wait_ms": "float4",
    "compute_ms": "float4",
    "batch_size": "int4",
    "worker": "text",
    "input": "json",
    "input_ref": "text",
    "result": "json",
    "result_ref": "text",
    "error": "json",
    "metadata": "json",
    "webhook": "text",
    "idempotency_key": "text",
    "trace": "text",
    "redrive_of": "uuid",
}
"""Column of `tasks` -> its PostgreSQL type, in the order of `encode_row`."""

UNENCODABLE = (ValueError, TypeError, OverflowError, RecursionError, struct.error)
"""What `encode_row` raises for a task that has no row."""

_size = struct.Struct("!i").pack
_int4 = struct.Struct("!ii").pack
_int8 = struct.Struct("!iq").pack
_float4 = struct.Struct("!if").pack
_float8 = struct.Struct("!id").pack
_array = struct.Struct("!iiIii").pack
_json = msgspec.json.Encoder().encode
_error = msgspec.json.Decoder(TaskError).decode


def encode_row(task: Task) -> tuple[bytes, ...]:
    """The task's values in the order of `COLUMNS`, each with its length in front.

    Raises:
        One of UNENCODABLE: a value does not fit its column, or is no JSON.
    """
    spec = task.spec
    return (
        _id(spec.task_id),
        _word(spec.tenant),
        _word(spec.user),
        _word(spec.model),
        _int8(8, spec.model_version),
        _word(spec.priority),
        _word(task.state),
        _int8(8, task.version),
        _int4(4, task.attempts),
        _int4(4, task.crashes),
        _float8(8, spec.cost),
        NULL if spec.timeout is None else _float8(8, spec.timeout),
        _time(task.created_at),
        _time(task.started_at),
        _time(task.completed_at),
        NULL
        if task.started_at is None
        else _float4(4, (task.started_at - task.created_at) * 1000.0),
        *_execution(task.execution),
        _document(spec.data),
        _text(spec.data_ref),
        _document(task.result),
        _text(task.result_ref),
        _document(task.error),
        _document(spec.metadata),
        _text(spec.webhook),
        _text(spec.idempotency_key),
        _text(spec.trace),
        NULL if spec.redrive_of is None else _id(spec.redrive_of),
    )


def encode_columns(tasks: Sequence[Task]) -> list[bytes]:
    """One binary array for each of `COLUMNS`, for `unnest`.

    Raises:
        One of UNENCODABLE: a task has no row.
    """
    values = zip(*[encode_row(task) for task in tasks], strict=True)
    return [
        _array(1, 1, OIDS[kind], len(tasks), 1) + b"".join(column)
        for kind, column in zip(COLUMNS.values(), values, strict=True)
    ]


def _execution(execution: Execution | None) -> tuple[bytes, bytes, bytes, bytes]:
    if execution is None:
        return (NULL, NULL, NULL, NULL)
    return (
        _float4(4, execution.batch_wait_ms),
        _float4(4, execution.compute_ms),
        _int4(4, execution.batch_size),
        _word(execution.worker),
    )


def _id(task_id: str) -> bytes:
    return _size(16) + bytes.fromhex(task_id.replace("-", ""))


def _time(seconds: float | None) -> bytes:
    if seconds is None:
        return NULL
    return _int8(8, round((seconds - POSTGRES_EPOCH) * 1_000_000))


def _text(value: str | None) -> bytes:
    if value is None:
        return NULL
    try:
        body = value.encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 does not have
        body = value.encode("utf-8", "replace")
    if b"\0" in body:  # the one character that text cannot hold
        body = body.replace(b"\0", "\N{REPLACEMENT CHARACTER}".encode())
    return _size(len(body)) + body


@lru_cache(maxsize=4096)
def _word(value: str | None) -> bytes:
    """`_text` for columns whose values repeat from row to row."""
    return _text(value)


def _document(value: Any) -> bytes:
    if value is None:
        return NULL
    try:
        body = _json(value)
    except (OverflowError, UnicodeEncodeError):  # an int over 64 bits; a lone surrogate
        body = json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()
    return _size(len(body)) + body


def decode_row(row: Any) -> Task:
    """A task from a row of `tasks` whose JSON columns were read as text.

    `input` and `result` may be missing from the row; `spec.data` is a `msgspec.Raw`.
    """
    values = row._mapping
    spec = TaskSpec(
        task_id=str(values["id"]),
        model=values["model"],
        model_version=values["model_version"],
        tenant=values["tenant"],
        data=_raw(values.get("input")),
        data_ref=values["input_ref"],
        priority=Priority(values["priority"]),
        timeout=values["timeout"],
        cost=values["cost"],
        user=values["user_name"],
        webhook=values["webhook"],
        metadata=json.loads(values["metadata"]) if values["metadata"] else None,
        idempotency_key=values["idempotency_key"],
        trace=values["trace"],
        redrive_of=None if values["redrive_of"] is None else str(values["redrive_of"]),
    )
    return Task(
        spec=spec,
        state=TaskState(values["state"]),
        attempts=values["attempts"],
        crashes=values["crashes"],
        version=values["state_version"],
        created_at=values["created_at"].timestamp(),
        started_at=_seconds(values["started_at"]),
        completed_at=_seconds(values["completed_at"]),
        execution=_decode_execution(values),
        error=_error(values["error"]) if values["error"] else None,
        result=_raw(values.get("result")),
        result_ref=values["result_ref"],
    )


def _decode_execution(values: Any) -> Execution | None:
    if values["worker"] is None:
        return None
    return Execution(
        worker=values["worker"],
        batch_wait_ms=values["batch_wait_ms"],
        compute_ms=values["compute_ms"],
        batch_size=values["batch_size"],
    )


def _raw(document: str | None) -> msgspec.Raw | None:
    return None if document is None else msgspec.Raw(document.encode())


def _seconds(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()
