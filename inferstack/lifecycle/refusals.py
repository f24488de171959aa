"""When a submission is refused, and with which error."""

from inferstack.errors import (
    CircuitOpenError,
    DeadlineUnreachableError,
    IdempotencyMismatchError,
    QueueFullError,
    TenantQueueFullError,
    wrong_field,
)
from inferstack.lifecycle.directory import Target
from inferstack.lifecycle.types import MAX_METADATA, Submission
from inferstack.queue.codec import encode
from inferstack.queue.types import Accepted, Enqueued
from inferstack.task import Priority

USED_KEY = {"field": "Idempotency-Key", "message": "was used before with another body"}
LANES = tuple(Priority)
"""In the order in which they are served."""


def refuse_large_metadata(submission: Submission) -> None:
    """Refuses metadata that have more than MAX_METADATA bytes as JSON.

    Raises:
        InvalidRequestError: they do.
    """
    size = len(encode(submission.metadata))
    if size > MAX_METADATA:
        raise wrong_field("metadata", f"has {size} bytes as JSON; it takes {MAX_METADATA} at most")


def refuse_if_late(target: Target, submission: Submission) -> None:
    """Refuses a task that cannot start within its timeout, as far as is known.

    Only what is served before it counts: its own lane and those above.

    Raises:
        DeadlineUnreachableError: `retry_after` says when it would fit.
    """
    statistics = target.statistics
    if statistics is None or submission.timeout is None:
        return
    lanes = LANES[: LANES.index(submission.priority) + 1]
    wait = target.wait_for(sum(statistics.waiting.get(lane, 0) for lane in lanes))
    if wait > submission.timeout:
        raise DeadlineUnreachableError(
            f"about {wait:.1f} s of work wait before it, its timeout is {submission.timeout:g} s",
            retry_after=wait - submission.timeout,
        )


def raise_refusal(target: Target, answer: Accepted) -> None:
    """Raises what the queue's answer means; returns if the task was accepted.

    Raises:
        IdempotencyMismatchError: the key belongs to another body.
        CircuitOpenError: the deployment keeps failing.
        TenantQueueFullError, QueueFullError: no room; `retry_after` says when to come back.
    """
    match answer.status:
        case Enqueued.MISMATCH:
            raise IdempotencyMismatchError(task_id=answer.task_id, errors=[USED_KEY])
        case Enqueued.TENANT_FULL:
            raise TenantQueueFullError(retry_after=target.retry_after())
        case Enqueued.FULL:
            raise QueueFullError(retry_after=target.retry_after())
        case Enqueued.OUTBOX_FULL:
            raise QueueFullError("history is too far behind to take new work", retry_after=5.0)
        case Enqueued.OPEN:
            name, seconds = target.deployment.name, max(1.0, answer.ahead / 1000)
            raise CircuitOpenError(
                f"{name} keeps failing; it is tried again in about {seconds:.0f} s",
                retry_after=seconds,
            )
