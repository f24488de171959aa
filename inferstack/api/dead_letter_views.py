"""Dead letters as callers read them, and the examples of the OpenAPI document."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from inferstack.api.problems import details
from inferstack.api.views import Timings, task_view
from inferstack.lifecycle.dead_letters import Inspected, Purged, Redriven
from inferstack.lifecycle.types import Caller, Receipt
from inferstack.storage.dead_letters import DeadLetter, DeadLetterPage
from inferstack.task import Priority, TaskState

TASK_ID = "01975a3c-7f2e-7c41-9d0b-3f6e5a1b2c3d"
NEW_ID = "01975a4e-11a0-7c41-8c7e-0a9b8c7d6e5f"


class DeadLetterError(msgspec.Struct, frozen=True):
    """Why it failed."""

    type: str
    message: str


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A failed task that was neither redriven nor purged."""

    task_id: str
    model: str
    model_version: int
    priority: Priority
    tenant: str | None
    """Shown to admins; null for others."""
    error: DeadLetterError | None
    attempts: int
    crashes: int
    """How many replicas died with it in their batch."""
    worker: str | None
    """The replica of the latest attempt."""
    failed_at: datetime | None
    created_at: datetime


class DeadLetterDetailView(DeadLetterView, frozen=True, kw_only=True):
    """A dead letter with everything that may say why it failed."""

    input: msgspec.Raw | None
    """Null if it has more than 1 MiB, or was not kept."""
    input_bytes: int | None
    """Its size as JSON; null if it was not kept."""
    metadata: dict[str, Any] | None
    timeout: float | None
    timings: Timings
    batch_size: int | None
    traceback: str | None
    """The engine's, shown to admins; null for others."""
    redrive_of: str | None
    """The failed task that this one repeated."""


class DeadLetterPageView(msgspec.Struct, frozen=True):
    """A page of dead letters, the latest failure first."""

    dead_letters: list[DeadLetterView]
    next_cursor: str | None


class RedriveView(msgspec.Struct, frozen=True):
    """The new task that repeats a dead letter."""

    task_id: str
    status: TaskState
    queue_position: int
    estimated_wait_time: float
    """Seconds."""
    redrive_of: str
    """The dead letter."""


class PurgeView(msgspec.Struct, frozen=True):
    """What a purge removed."""

    purged: int
    more: bool
    """Whether the limit or the time ended it: call again."""


def _summary(letter: DeadLetter, caller: Caller) -> dict[str, Any]:
    task = letter.task
    view, error = task_view(task, caller), task.error
    return {
        "task_id": view.task_id,
        "model": view.model,
        "model_version": view.model_version,
        "priority": view.priority,
        "tenant": task.spec.tenant if caller.role == "admin" else None,
        "error": None if error is None else DeadLetterError(error.type, error.message),
        "attempts": view.attempts,
        "crashes": task.crashes,
        "worker": None if task.execution is None else task.execution.worker,
        "failed_at": view.completed_at,
        "created_at": view.created_at,
    }


def page_view(page: DeadLetterPage, caller: Caller) -> DeadLetterPageView:
    """A page as this caller may see it."""
    letters = [DeadLetterView(**_summary(letter, caller)) for letter in page.letters]
    return DeadLetterPageView(letters, page.next_cursor)


def detail_view(found: Inspected, caller: Caller) -> DeadLetterDetailView:
    """A dead letter as this caller may see it: only an admin reads the engine's traceback."""
    task = found.letter.task
    view = task_view(task, caller)
    return DeadLetterDetailView(
        **_summary(found.letter, caller),
        input=found.input,
        input_bytes=found.input_bytes,
        metadata=view.metadata,
        timeout=task.spec.timeout,
        timings=view.timings,
        batch_size=view.batch_size,
        traceback=None if view.error is None else view.error.traceback,
        redrive_of=task.spec.redrive_of,
    )


def redrive_view(receipt: Receipt) -> RedriveView:
    """The receipt of a redrive."""
    wait = round(receipt.estimated_wait, 3)
    old = receipt.spec.redrive_of or ""
    return RedriveView(receipt.task_id, receipt.state, receipt.position, wait, old)


def redriven_view(answers: Sequence[Redriven], instance: str) -> list[Any]:
    """The answers to many redrives: receipts, and problem details of what was refused."""
    return [
        redrive_view(answer)
        if isinstance(answer, Receipt)
        else details(answer, instance) | {"task_id": task_id}
        for task_id, answer in answers
    ]


def purge_view(purged: Purged) -> PurgeView:
    """What a purge removed."""
    return PurgeView(purged.tasks, purged.more)


LETTER: dict[str, Any] = {
    "task_id": TASK_ID,
    "model": "minilm",
    "model_version": 1,
    "priority": "normal",
    "tenant": None,
    "error": {"type": "engine-error", "message": "the model failed: out of memory"},
    "attempts": 3,
    "crashes": 0,
    "worker": "gpu-1:4711:a",
    "failed_at": "2026-11-23T12:00:07.250000Z",
    "created_at": "2026-11-23T12:00:00.000000Z",
}
DETAIL: dict[str, Any] = LETTER | {
    "input": {"text": "Hello, world!"},
    "input_bytes": 24,
    "metadata": {"order": 17},
    "timeout": 60.0,
    "timings": {"queue_ms": 7100.0, "batch_wait_ms": 1.2, "compute_ms": 17.5},
    "batch_size": 8,
    "traceback": None,
    "redrive_of": None,
}
REDRIVE: dict[str, Any] = {
    "task_id": NEW_ID,
    "status": "queued",
    "queue_position": 3,
    "estimated_wait_time": 0.05,
    "redrive_of": TASK_ID,
}
EXAMPLES: dict[str, Any] = {
    "DeadLetterPageView": {"dead_letters": [LETTER], "next_cursor": None},
    "DeadLetterDetailView": DETAIL,
    "RedriveView": REDRIVE,
    "RedrivesView": [REDRIVE],
    "PurgeView": {"purged": 1, "more": False},
    "Changes": {"model_version": 2, "priority": "high", "timeout": 30},
    "RedriveMany": {"model": "minilm", "error": "engine-error", "limit": 100},
}
"""One for each answer and body, by its name in the OpenAPI document."""
