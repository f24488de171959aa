"""What callers hand in and get back."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from inferstack.errors import InferstackError
from inferstack.task import Priority, Task, TaskSpec, TaskState

MAX_TIMEOUT = 7 * 24 * 3600.0
"""The longest timeout of a task, in seconds."""

MAX_METADATA = 16 * 1024
"""Bytes that metadata may have as JSON."""

Name = Annotated[str, Meta(min_length=1, max_length=128)]


class Caller(msgspec.Struct, frozen=True):
    """Who asks."""

    tenant: str
    user: str
    role: str = "user"
    """`user` sees its tenant's tasks, `admin` sees all."""

    @property
    def scope(self) -> str | None:
        """The tenant whose tasks it sees; None for everybody's."""
        return None if self.role == "admin" else self.tenant

    def may_see(self, task: Task) -> bool:
        """Whether a task exists as far as this caller is concerned."""
        return self.scope in (None, task.spec.tenant)


class Submission(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /api/inference`."""

    data: dict[str, Any]
    model: Name | None = None
    """The setting DEFAULT_MODEL if None."""
    model_version: Annotated[int, Meta(ge=1)] | None = None
    """The highest version that is ready if None."""
    priority: Priority = Priority.NORMAL
    timeout: Annotated[float, Meta(gt=0, le=MAX_TIMEOUT)] | None = 60.0
    """Seconds from submit until the task expires; null never expires."""
    metadata: dict[str, Any] | None = None
    """Given back with the task; at most MAX_METADATA bytes as JSON."""
    cancel_on_disconnect: bool = False
    """Cancel the task if the client closes its connection while it waits for the answer."""
    reject_if_late: bool = False
    """Refuse at once when the predicted wait is longer than the timeout."""


class Receipt(msgspec.Struct, frozen=True):
    """That a task is accepted and durable."""

    spec: TaskSpec
    state: TaskState
    position: int
    """Its place in the queue, from 1; 0 once it runs."""
    estimated_wait: float
    """Seconds until it starts, by the measured capacity of the replicas."""
    created_at: float
    existing: bool = False
    """Whether an idempotency key found a task of before."""

    @classmethod
    def of(cls, task: Task) -> "Receipt":
        """That of a task which was there before."""
        return cls(task.spec, task.state, 0, 0.0, task.created_at, existing=True)

    @property
    def task_id(self) -> str:
        """The id to ask for."""
        return self.spec.task_id


class Position(msgspec.Struct, frozen=True):
    """Where a task stands in its queue."""

    state: TaskState
    place: int | None = None
    """From 1; None once it runs, and while it waits for a retry."""
    estimated_wait: float | None = None
    """Seconds until it starts, by the measured capacity of the replicas."""


Answer = Task | Receipt
"""A finished task, or the receipt of one that is not finished yet."""

BatchAnswer = Receipt | InferstackError
