"""The trace of a task, told by the recorder once the task has ended.

It knows all its times by then, and tells them off everybody's way: the queue and the replicas have
no part in it. Ids are made from the task's, so that a task told twice is the same spans.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator

from inferstack.task import Task, TaskState
from inferstack.telemetry.traces import CONSUMER, Context, Span, Tracer

MOST_ERROR = 500
"""Characters of an error's message."""


def trace(tracer: Tracer, tasks: Iterable[Task]) -> None:
    """Hands the spans of those that have ended to a tracer."""
    for task in tasks:
        if task.state.terminal and task.spec.trace is not None:
            above = Context.parse(task.spec.trace)
            if above.sampled:
                for span in _spans(task, above, time.time()):
                    tracer.add(span)


def _spans(task: Task, above: Context, now: float) -> Iterator[Span]:
    """The task, and below it: queue, batch, predict, archive."""
    spec, run = task.spec, task.execution
    ended = task.completed_at or task.created_at
    whole = above.child(_id(spec.task_id, "task"))

    def step(service: str, name: str, start: float, end: float, **attributes: str | int) -> Span:
        return Span(
            context=whole.child(_id(spec.task_id, name)),
            parent=whole.span_id,
            service=f"inferstack-{service}",
            name=name,
            start=start,
            end=end,
            attributes=attributes,
        )

    yield Span(
        context=whole,
        parent=above.span_id,
        service="inferstack-queue",
        name=f"task {spec.deployment}",
        start=task.created_at,
        end=ended,
        kind=CONSUMER,
        attributes={
            "inferstack.task_id": spec.task_id,
            "inferstack.deployment": spec.deployment,
            "inferstack.priority": spec.priority.value,
            "inferstack.state": task.state.value,
            "inferstack.attempts": task.attempts,
        },
        error=_error(task),
    )
    claimed = task.started_at
    yield step("queue", "queue", task.created_at, claimed or ended)
    if claimed and run is not None and run.batch_size:
        began = claimed + run.batch_wait_ms / 1000
        yield step("replica", "batch", claimed, began)
        batch: dict[str, str | int] = {
            "inferstack.batch_size": run.batch_size,
            "inferstack.replica": run.worker,
        }
        yield step("replica", "predict", began, began + run.compute_ms / 1000, **batch)
    yield step("recorder", "archive", ended, now)


def _error(task: Task) -> str:
    if task.state is TaskState.COMPLETED:
        return ""
    return task.error.message[:MOST_ERROR] if task.error else task.state.value


def _id(task_id: str, name: str) -> str:
    return hashlib.blake2b(f"{task_id} {name}".encode(), digest_size=8).hexdigest()
