"""What goes into the queue of a deployment, and what comes out of it."""

from enum import StrEnum
from typing import NamedTuple

from inferstack.task import TaskSpec


class Enqueued(StrEnum):
    """What became of one submitted task."""

    OK = "ok"
    DUPLICATE = "dup"
    MISMATCH = "mismatch"
    FULL = "full"
    TENANT_FULL = "tenant-full"
    OUTBOX_FULL = "outbox-full"
    OPEN = "open"


class Submit(NamedTuple):
    """One task on its way in."""

    spec: TaskSpec
    encoded: bytes
    """The spec as JSON."""
    fingerprint: str = ""
    """Digest of the request's body; tells a repeat from another use of the same key."""
    weight: float = 1.0
    """The tenant's share relative to others."""
    watch: bool = False
    """Whether this API process wants to be told when it finishes."""
    moves: bool = False
    """Whether another deployment takes it if the answer is OPEN; this one never takes its key."""
    repeats: bool = False
    """Whether it is taken as a repeat only: of another task with its key, or the answer is OPEN."""


class Accepted(NamedTuple):
    """The queue's answer to one `Submit`."""

    status: Enqueued
    task_id: str
    """The task that exists now: the one sent, or the one that holds the idempotency key."""
    ahead: int
    """Tasks that are served before it; if the circuit is open, milliseconds until it may close."""
    created_at: float
    """Seconds since the epoch."""


class Claim(NamedTuple):
    """One leased task as it comes from Redis."""

    task_id: str
    attempt: int
    crashes: int
    failures: int
    """Attempts before this one that failed and were charged."""
    spec: TaskSpec


class Completion(NamedTuple):
    """One result on its way back."""

    task_id: str
    attempt: int
    result: bytes
    """JSON; empty if it lies in the object store."""
    result_ref: str
    """Its key in the object store; empty if inline."""
    execution: bytes
    """Execution as JSON."""


class Retry(StrEnum):
    """What a failure means for the task."""

    FINAL = "final"
    """Another attempt makes no sense."""
    CHARGED = "retry"
    """Another attempt, while the budget lasts."""
    FREE = "free"
    """Another attempt that charges nothing: not the task failed but what it needs."""


class Failure(NamedTuple):
    """One failed attempt."""

    task_id: str
    attempt: int
    how: Retry
    delay: float
    """Seconds until the next attempt."""
    error: bytes
    execution: bytes
    engine: bool = True
    """Whether it was the engine that failed, and not the input: what opens the circuit."""
