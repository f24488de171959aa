"""How tasks look inside Redis.

The hash `t:<id>` holds a packed `Record` in `s`, and JSON: in `spec` the TaskSpec, and once
they are known in `ex` the Execution, in `err` the TaskError of the latest failure, in `res` the
result, or in `ref` its key in the object store.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from inferstack.task import Execution, Priority, Task, TaskError, TaskSpec, TaskState


class StoredSpec(TaskSpec, frozen=True, kw_only=True, omit_defaults=True):
    """A spec whose input nobody looks into: history and readers hand it on as it is."""

    data: msgspec.Raw = None  # type: ignore[assignment]  # None as in TaskSpec: it lies elsewhere


class Record(NamedTuple):
    """What changes during a task's life; see `common.lua`. Times in ms, 0 before they come."""

    version: int
    attempt: int
    uncharged: int
    failures: int
    crashes: int
    tag: int
    created: int
    started: int
    completed: int
    state: TaskState
    lane: str
    tenant: str
    worker: str
    apis: str


_numbers = struct.Struct("<9d")
_spec = msgspec.json.Decoder(TaskSpec)
_stored_spec = msgspec.json.Decoder(StoredSpec)
_execution = msgspec.json.Decoder(Execution)
_error = msgspec.json.Decoder(TaskError)

STATES = {state.value.encode(): state for state in TaskState}

encode = msgspec.json.Encoder().encode
pack = msgspec.msgpack.Encoder().encode
decode_spec = _spec.decode

UNREADABLE = (msgspec.MsgspecError, struct.error, KeyError, ValueError, RecursionError, TypeError)
"""What decoding raises for a task that was spoiled."""


def seconds(millis: int) -> float | None:
    """Milliseconds as Redis holds them, as seconds; None for a time that has not come."""
    return millis / 1000 if millis else None


def millis(seconds: float | None) -> int:
    """The other way round."""
    return round(seconds * 1000) if seconds else 0


Row = Sequence[bytes | None]
"""The fields of a task's hash in the order of `load.lua`."""


def decode_record(packed: bytes) -> Record:
    """A record as `packed` in `common.lua` makes it."""
    version, attempt, uncharged, failures, crashes, tag, created, started, completed = map(
        int, _numbers.unpack_from(packed)
    )
    state, lane, tenant, worker, apis, _ = packed[_numbers.size :].split(b"\0")
    return Record(
        version,
        attempt,
        uncharged,
        failures,
        crashes,
        tag,
        created,
        started,
        completed,
        STATES[state],
        lane.decode(),
        tenant.decode(),
        worker.decode(),
        apis.decode(),
    )


def decode_task(row: Row) -> Task | None:
    """A task from its hash; None if Redis does not have it (any more).

    `spec.data` is a `msgspec.Raw`.
    """
    packed, spec, execution, error, result, ref = row
    if packed is None or spec is None:
        return None
    record = decode_record(packed)
    if record.state is TaskState.COMPLETED:
        error = None  # of an attempt before the one that succeeded
    return Task(
        spec=_stored_spec.decode(spec),
        state=record.state,
        attempts=record.attempt - record.uncharged,
        crashes=record.crashes,
        version=record.version,
        created_at=record.created / 1000,
        started_at=seconds(record.started),
        completed_at=seconds(record.completed),
        execution=_execution.decode(execution) if execution else None,
        error=_error.decode(error) if error else None,
        result=msgspec.Raw(result) if result is not None else None,
        result_ref=ref.decode() if ref else None,
    )


def without_spec(row: Row, task_id: str, deployment: str) -> Row:
    """A row with what is known of the task apart from its spec, for one whose spec is spoiled."""
    packed, _, *rest = row
    assert packed is not None, "it has been decoded as far as the spec"
    record = decode_record(packed)
    model, _, version = deployment.rpartition(":")
    spec = TaskSpec(
        task_id=task_id,
        model=model,
        model_version=int(version),
        tenant=record.tenant,
        data=None,
        priority=Priority(record.lane),
    )
    return packed, encode(spec), *rest


class News(msgspec.Struct, array_like=True, frozen=True):
    """That a task finished, as `common.lua` publishes it. Times in ms, or 0."""

    task_id: str
    state: TaskState
    attempts: int
    crashes: int
    started: int
    completed: int
    execution: str
    """JSON, or empty; so are the next two."""
    error: str
    result: str
    ref: str
    """Key of the result in the object store, or empty."""

    @property
    def completed_at(self) -> float:
        """Seconds since the epoch."""
        return self.completed / 1000

    def task(self, spec: TaskSpec, created_at: float) -> Task:
        """The finished task.

        Args:
            spec: what was asked for.
            created_at: seconds since the epoch.
        """
        return Task(
            spec=spec,
            state=self.state,
            attempts=self.attempts,
            crashes=self.crashes,
            created_at=created_at,
            started_at=seconds(self.started),
            completed_at=self.completed_at,
            execution=_shared_execution(self.execution) if self.execution else None,
            error=_error.decode(self.error) if self.error else None,
            result=msgspec.Raw(self.result) if self.result else None,
            result_ref=self.ref or None,
        )


decode_news = msgspec.msgpack.Decoder(list[News]).decode
"""All tasks that one published message tells of."""


@lru_cache(maxsize=256)
def _shared_execution(text: str) -> Execution:
    """All tasks of a batch have the same."""
    return _execution.decode(text)


def news_of(task: Task) -> News:
    """What would have been published when this finished task finished."""
    return News(
        task_id=task.spec.task_id,
        state=task.state,
        attempts=task.attempts,
        crashes=task.crashes,
        started=millis(task.started_at),
        completed=millis(task.completed_at),
        execution=encode(task.execution).decode() if task.execution else "",
        error=encode(task.error).decode() if task.error else "",
        result=bytes(task.result).decode() if task.result is not None else "",
        ref=task.result_ref or "",
    )
