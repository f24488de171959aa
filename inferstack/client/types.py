"""What callers send and what the API answers, as typed and frozen values. Pure."""

from datetime import datetime
from typing import Any, TypedDict

import msgspec

from inferstack.task import Priority, TaskError, TaskState


class SubmitOptions(TypedDict, total=False):
    """The optional fields of a request, as keyword arguments; see `Submission`."""

    model: str | None
    model_version: int | None
    priority: Priority | str
    timeout: float | None
    metadata: dict[str, Any] | None
    cancel_on_disconnect: bool
    reject_if_late: bool


class Submission(msgspec.Struct, frozen=True, omit_defaults=True):
    """One inference request: the JSON body of `POST /api/inference`."""

    data: dict[str, Any]
    """The input, in the shape that the model takes."""
    model: str | None = None
    """The server's default model if None."""
    model_version: int | None = None
    """The highest version that is ready if None."""
    priority: Priority | str = Priority.NORMAL
    timeout: float | None = 60.0
    """Seconds from submit until the task expires; None never expires."""
    metadata: dict[str, Any] | None = None
    """Comes back with the task, unread."""
    cancel_on_disconnect: bool = False
    """Cancel the task if this client goes while it waits for the answer in the same request."""
    reject_if_late: bool = False
    """Refuse at once if the predicted wait is longer than `timeout`."""


class Receipt(msgspec.Struct, frozen=True):
    """An accepted task that has not finished: the API answered 202."""

    task_id: str
    status: TaskState = TaskState.QUEUED
    queue_position: int | None = None
    """Its place in the queue, from 1; 0 once it runs."""
    estimated_wait_time: float | None = None
    """Seconds until it is predicted to start."""


class Timings(msgspec.Struct, frozen=True):
    """Where the time of a task went, in milliseconds."""

    queue_ms: float | None = None
    batch_wait_ms: float | None = None
    compute_ms: float | None = None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the API shows it."""

    task_id: str
    status: TaskState
    result: Any = None
    """The model's output; None until completed."""
    error: TaskError | None = None
    """Why it failed; None otherwise."""
    model: str | None = None
    model_version: int | None = None
    priority: Priority | None = None
    attempts: int = 0
    """How often a replica began it."""
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    processing_time: float | None = None
    """Seconds from start to end."""
    timings: Timings | None = None
    batch_size: int | None = None
    """How many tasks ran in the same batch."""
    cost: float | None = None
    metadata: dict[str, Any] | None = None
    redrive_of: str | None = None
    """The failed task that this one repeats."""

    @property
    def finished(self) -> bool:
        """Whether the task never changes again."""
        return self.status.terminal


class TaskPage(msgspec.Struct, frozen=True):
    """One page of history, newest first."""

    tasks: tuple[Task, ...]
    next_cursor: str | None = None
    """Pass it to `list` for the next page; None on the last one."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model version that the server knows."""

    model: str
    version: int
    state: str
    """`starting`, `ready` or `failed`."""
    default: bool = False
    """Whether requests that name no model are for this model."""
    reason: str | None = None
    """Why it failed, in one line."""
    task: str | None = None
    """What it does, such as `sentence-embedding`."""
    engine: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON Schema of `data`."""
    waiting: dict[str, int] = {}
    """Tasks that wait for it, by priority."""
    running: int = 0


class Token(msgspec.Struct, frozen=True):
    """An access token; its text is left out of `repr`."""

    access_token: str
    token_type: str = "bearer"
    expires_in: float = 0.0
    """Seconds for which the token is valid."""

    def __repr__(self) -> str:
        """Without the token itself, so that a log never holds it."""
        return f"Token(token_type={self.token_type!r}, expires_in={self.expires_in!r})"
