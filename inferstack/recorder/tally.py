"""Counts what became of every task: here once for each, and off everybody's way."""

import logging
from collections.abc import Iterable

from inferstack.task import Task, TaskState
from inferstack.telemetry import metrics

log = logging.getLogger(__name__)

LEVELS = {
    TaskState.FAILED: logging.WARNING,
    TaskState.EXPIRED: logging.INFO,
    TaskState.CANCELLED: logging.INFO,
    TaskState.COMPLETED: logging.DEBUG,
}
"""How loud the end of a task is: what its owner wanted to happen is for the curious only."""


def count(tasks: Iterable[Task]) -> None:
    """Counts and logs those that have ended.

    Those that a recorder wrote just before it died are in no count: its own died with it, and the
    next recorder does not write them again.
    """
    for task in tasks:
        if task.state.terminal:
            _count(task)
            if log.isEnabledFor(LEVELS[task.state]):
                _log(task)


def _count(task: Task) -> None:
    spec, run = task.spec, task.execution
    model, version, priority = spec.model, spec.model_version, spec.priority
    ended = task.completed_at or task.created_at
    taken = ended - task.created_at
    metrics.TASK_SECONDS.observe((model, version, priority, task.state), taken)
    if task.started_at:
        waited = task.started_at - task.created_at
        metrics.QUEUE_WAIT_SECONDS.observe((model, version, priority), waited)
    if run is not None and run.batch_size:
        metrics.BATCH_WAIT_SECONDS.observe((model, version), run.batch_wait_ms / 1000)
    if task.state is TaskState.FAILED:
        error = task.error.type if task.error else "unknown"
        metrics.DEAD_LETTERS.labels(model, str(version), error).inc()


def _log(task: Task) -> None:
    error = task.error if task.state is TaskState.FAILED else None
    more = {"error": error.type} if error else {}
    log.log(
        LEVELS[task.state],
        "%s%s",
        task.state.value,
        f": {error.message}" if error else "",
        extra={
            "task_id": task.spec.task_id,
            "deployment": task.spec.deployment,
            "attempts": task.attempts,
            **more,
        },
    )
