"""The unit of work and its life. Pure: knows nothing of Redis, HTTP or models."""

import os
import random
import time
import zlib
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec


class Priority(StrEnum):
    """The lane a task waits in; served in this order, with a share kept for the lowest."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class TaskState(StrEnum):
    """Where a task is in its life, and who moves it on."""

    QUEUED = "queued"
    """Waits for a replica or for a retry. Moved on by claim, cancel or its deadline."""

    RUNNING = "running"
    """Leased to a replica. Moved on by complete, fail, cancel, its deadline, or back to
    queued when the replica releases it or its lease runs out."""

    COMPLETED = "completed"
    """Has a result. Terminal."""

    FAILED = "failed"
    """Has an error and no attempts left: a dead letter until redriven. Terminal."""

    CANCELLED = "cancelled"
    """Its owner no longer wants it. Terminal."""

    EXPIRED = "expired"
    """Its deadline passed first. Terminal."""

    @property
    def terminal(self) -> bool:
        """Whether a task in this state never changes again."""
        return self in TERMINAL


TERMINAL = frozenset(
    {TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED}
)

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset({TaskState.RUNNING, TaskState.CANCELLED, TaskState.EXPIRED}),
    TaskState.RUNNING: frozenset({TaskState.QUEUED, *TERMINAL}),
    **{state: frozenset() for state in TERMINAL},
}
"""Every change of state that may happen; all of them happen inside the queue's scripts."""


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for. Written once at submit, never changed."""

    task_id: str
    """UUIDv7; its random field `rand_a` names the deployment, see `new_task_id`."""
    model: str
    model_version: int
    tenant: str
    """Who the work is done for."""
    data: Any = None
    """The input as the caller sent it; None when it lies in the object store."""
    data_ref: str | None = None
    """Key of the input in the object store, for inputs over the inline limit."""
    priority: Priority = Priority.NORMAL
    timeout: float | None = 60.0
    """Seconds from submit until the task expires; None never expires."""
    cost: float = 1.0
    """Size of the input in the model's own unit (tokens, pixels), for fairness and batching."""
    user: str | None = None
    """Who sent it: a username or the name of an API key."""
    webhook: str | None = None
    """Where to send the finished task; nothing sets it yet."""
    metadata: dict[str, Any] | None = None
    idempotency_key: str | None = None
    trace: str | None = None
    """W3C traceparent of the request that submitted it."""
    redrive_of: str | None = None
    """The failed task that this one repeats."""

    @property
    def deployment(self) -> str:
        """`model:version`, the name of the queue that the task waits in."""
        return deployment_name(self.model, self.model_version)


class TaskError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a task failed, as its owner reads it."""

    type: str
    """A problem slug such as `engine-error`, `invalid-input`, `replica-crashed`."""
    message: str
    retryable: bool = False
    traceback: str | None = None
    """The engine's traceback; shown to operators only."""


class Execution(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one attempt ran, as its replica measured it."""

    worker: str
    batch_wait_ms: float = 0.0
    """From the claim until the batch that held the task began."""
    compute_ms: float = 0.0
    """How long `predict` took for the whole batch."""
    batch_size: int = 0


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task with its live state: what every way in reads and what history keeps."""

    spec: TaskSpec
    state: TaskState
    attempts: int = 0
    """How often it was claimed, without the claims that ended before it ran."""
    crashes: int = 0
    """How many replicas died with it in their batch."""
    version: int = 0
    """Grows with each change of state; history keeps the highest."""
    created_at: float = 0.0
    """Seconds since the epoch, by the clock of Redis; so are the other two."""
    started_at: float | None = None
    completed_at: float | None = None
    execution: Execution | None = None
    error: TaskError | None = None
    result: msgspec.Raw | None = None
    """The output as JSON; None before completion and when it lies in the object store."""
    result_ref: str | None = None
    """Key of the output in the object store, for outputs over the inline limit."""


# Seeded from the system's entropy, and so far cheaper than asking it for each id.
_random = random.Random()
os.register_at_fork(after_in_child=_random.seed)


def deployment_name(model: str, version: int) -> str:
    """The name of a deployment's queue: `model:version`."""
    return f"{model}:{version}"


@lru_cache(maxsize=1024)
def deployment_hint(deployment: str) -> int:
    """The 12 bits by which a task id tells which deployment it may belong to."""
    return zlib.crc32(deployment.encode()) & 0xFFF


def new_task_id(deployment: str) -> str:
    """A UUIDv7 (RFC 9562) whose 12-bit `rand_a` field is `deployment_hint(deployment)`.

    The hint spares a directory from task to queue: a look-up asks only the few
    deployments with the same hint. 62 random bits a millisecond remain.
    """
    millis = time.time_ns() // 1_000_000
    high = millis << 16 | 0x7000 | deployment_hint(deployment)
    digits = f"{high << 64 | 0b10 << 62 | _random.getrandbits(62):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def task_id_hint(task_id: str) -> int | None:
    """The deployment hint inside a task id, or None if it is not a UUIDv7 in lower case."""
    if len(task_id) != 36 or task_id[14] != "7" or task_id[8:24:5] != "----":
        return None
    digits = task_id.replace("-", "")
    if len(digits) != 32 or digits.strip("0123456789abcdef"):
        return None
    return int(digits[13:16], 16)
