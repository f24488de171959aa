"""How tasks look inside Redis.

Fields of the hash `t:<id>`:

    st state · v state version · spec TaskSpec as JSON · ln lane · tn tenant · tag fair-queueing tag
    a attempt (fence) · rl claims that charge no attempt · fl failures · cr crashes
    at, sa, ca created, started, completed (ms) · w replica · api processes to tell
    ex Execution as JSON · err TaskError as JSON · res result as JSON · ref its object-store key
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from inferstack.task import Execution, Task, TaskError, TaskSpec, TaskState


class StoredSpec(TaskSpec, frozen=True, kw_only=True, omit_defaults=True):
    """A spec whose input nobody looks into: history and readers hand it on as it is."""

    data: msgspec.Raw = None  # type: ignore[assignment]  # None as in TaskSpec: it lies elsewhere


_spec = msgspec.json.Decoder(TaskSpec)
_stored_spec = msgspec.json.Decoder(StoredSpec)
_execution = msgspec.json.Decoder(Execution)
_error = msgspec.json.Decoder(TaskError)
_news = msgspec.msgpack.Decoder(list[list[Any]])

STATES = {state.value.encode(): state for state in TaskState}

encode = msgspec.json.Encoder().encode
pack = msgspec.msgpack.Encoder().encode
decode_spec = _spec.decode


def seconds(millis: Any) -> float | None:
    """Milliseconds as Redis holds them, as seconds; None for a time that has not come."""
    return int(millis) / 1000 if millis else None


Row = Sequence[bytes | None]
"""The fields of a task's hash in the order of `load.lua`."""


def decode_task(row: Row) -> Task | None:
    """A task from its hash; None if Redis does not have it (any more).

    `spec.data` is a `msgspec.Raw`.
    """
    state, version, spec, claims, uncharged, crashes, created, started, completed, *rest = row
    if state is None or spec is None:
        return None
    execution, error, result, ref = rest
    return Task(
        spec=_stored_spec.decode(spec),
        state=STATES[state],
        attempts=int(claims or 0) - int(uncharged or 0),
        crashes=int(crashes or 0),
        version=int(version or 0),
        created_at=int(created or 0) / 1000,
        started_at=seconds(started),
        completed_at=seconds(completed),
        execution=_execution.decode(execution) if execution else None,
        error=_error.decode(error) if error else None,
        result=msgspec.Raw(result) if result is not None else None,
        result_ref=ref.decode() if ref else None,
    )


class News(msgspec.Struct, frozen=True):
    """That a task finished, as `complete` and its like publish it."""

    task_id: str
    state: TaskState
    attempts: int
    crashes: int
    started_at: float | None
    completed_at: float
    execution: Execution | None
    error: TaskError | None
    result: bytes | None
    result_ref: str | None

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
            started_at=self.started_at,
            completed_at=self.completed_at,
            execution=self.execution,
            error=self.error,
            result=msgspec.Raw(self.result) if self.result is not None else None,
            result_ref=self.result_ref,
        )


def decode_news(body: bytes) -> list[News]:
    """All tasks that one published message tells of; the layout is in `complete.lua`."""
    return [
        News(
            task_id=task_id,
            state=TaskState(state),
            attempts=int(attempts),
            crashes=int(crashes),
            started_at=seconds(started),
            completed_at=int(completed) / 1000,
            execution=_execution.decode(execution) if execution else None,
            error=_error.decode(error) if error else None,
            result=result.encode() if result else None,
            result_ref=ref or None,
        )
        for (
            task_id,
            state,
            attempts,
            crashes,
            started,
            completed,
            execution,
            error,
            result,
            ref,
        ) in _news.decode(body)
    ]


def news_of(task: Task) -> News:
    """What would have been published when this finished task finished."""
    return News(
        task_id=task.spec.task_id,
        state=task.state,
        attempts=task.attempts,
        crashes=task.crashes,
        started_at=task.started_at,
        completed_at=task.completed_at or task.created_at,
        execution=task.execution,
        error=task.error,
        result=bytes(task.result) if task.result is not None else None,
        result_ref=task.result_ref,
    )
