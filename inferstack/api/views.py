"""Tasks as callers read them: the JSON of the HTTP contract."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from inferstack.api.problems import details
from inferstack.errors import InferstackError
from inferstack.lifecycle.types import Caller, Position, Receipt
from inferstack.storage.history import HistoryPage
from inferstack.task import Priority, Task, TaskError, TaskSpec, TaskState


class Timings(msgspec.Struct, frozen=True):
    """Where the time of a task went, in milliseconds; null for what has not happened."""

    queue_ms: float | None
    """From submit until the latest attempt began."""
    batch_wait_ms: float | None
    compute_ms: float | None
    """How long `predict` took for the whole batch."""


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task as its owner reads it."""

    task_id: str
    status: TaskState
    result: msgspec.Raw | None
    error: TaskError | None
    model: str
    model_version: int
    priority: Priority
    attempts: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    processing_time: float | None
    """Seconds from the start of the latest attempt to the end."""
    timings: Timings
    batch_size: int | None
    cost: float
    metadata: dict[str, Any] | None
    redrive_of: str | None
    """The failed task that this one repeats."""


class ReceiptView(msgspec.Struct, frozen=True):
    """An accepted task."""

    task_id: str
    status: TaskState
    queue_position: int
    estimated_wait_time: float
    """Seconds."""


class PositionView(msgspec.Struct, frozen=True):
    """Where a task stands in its queue now."""

    status: TaskState
    queue_position: int | None
    """From 1; null once it runs, and while it waits for a retry."""
    estimated_wait_time: float | None
    """Seconds."""


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    """The request that made a task, as `POST /api/inference` takes it."""

    data: dict[str, Any]
    model: str
    model_version: int
    priority: Priority
    timeout: float | None
    metadata: dict[str, Any] | None


class PageView(msgspec.Struct, frozen=True):
    """A page of history, newest first."""

    tasks: list[TaskView]
    next_cursor: str | None


def task_view(task: Task, caller: Caller) -> TaskView:
    """A task as this caller may see it: only an admin reads an engine's traceback."""
    spec, execution, error = task.spec, task.execution, task.error
    started, completed = task.started_at, task.completed_at
    if error is not None and error.traceback is not None and caller.role != "admin":
        error = TaskError(error.type, error.message, error.retryable)
    return TaskView(
        task_id=spec.task_id,
        status=task.state,
        result=task.result,
        error=error,
        model=spec.model,
        model_version=spec.model_version,
        priority=spec.priority,
        attempts=task.attempts,
        created_at=datetime.fromtimestamp(task.created_at, UTC),
        started_at=None if started is None else datetime.fromtimestamp(started, UTC),
        completed_at=None if completed is None else datetime.fromtimestamp(completed, UTC),
        processing_time=_between(started, completed, 1.0),
        timings=Timings(
            _between(task.created_at, started, 1000.0),
            None if execution is None else execution.batch_wait_ms,
            None if execution is None else execution.compute_ms,
        ),
        batch_size=None if execution is None else execution.batch_size,
        cost=spec.cost,
        metadata=spec.metadata,
        redrive_of=spec.redrive_of,
    )


def receipt_view(receipt: Receipt) -> ReceiptView:
    """A receipt as callers read it."""
    return ReceiptView(
        receipt.task_id, receipt.state, receipt.position, round(receipt.estimated_wait, 3)
    )


def position_view(position: Position) -> PositionView:
    """A position as callers read it."""
    wait = position.estimated_wait
    return PositionView(position.state, position.place, None if wait is None else round(wait, 3))


def request_view(spec: TaskSpec) -> RequestView:
    """What a task was asked for, as callers sent it."""
    return RequestView(
        data=spec.data,
        model=spec.model,
        model_version=spec.model_version,
        priority=spec.priority,
        timeout=spec.timeout,
        metadata=spec.metadata,
    )


def page_view(page: HistoryPage, caller: Caller) -> PageView:
    """A page of history as this caller may see it."""
    return PageView([task_view(task, caller) for task in page.tasks], page.next_cursor)


def batch_view(answers: list[Receipt | InferstackError], instance: str) -> list[Any]:
    """The answers to a batch: receipts, and problem details in the place of what was refused."""
    return [
        receipt_view(answer) if isinstance(answer, Receipt) else details(answer, instance)
        for answer in answers
    ]


def _between(start: float | None, end: float | None, unit: float) -> float | None:
    if start is None or end is None:
        return None
    return round(max(0.0, end - start) * unit, 6 if unit == 1.0 else 3)
