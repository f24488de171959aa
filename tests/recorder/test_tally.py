"""What the recorder counts and logs of the tasks that ended."""

import logging

import msgspec
import pytest
from prometheus_client import generate_latest

from inferstack.recorder import tally
from inferstack.task import Execution, Task, TaskError, TaskSpec, TaskState
from inferstack.telemetry import metrics


def task(state: TaskState, number: int, **more: object) -> Task:
    spec = TaskSpec(task_id=f"id-{number}", model="tallied", model_version=3, tenant="t")
    made = Task(spec=spec, state=state, created_at=100.0, started_at=100.2, completed_at=101.5)
    return msgspec.structs.replace(made, **more)


def test_every_end_is_counted_once_with_its_times() -> None:
    run = Execution("w", batch_wait_ms=20, compute_ms=1300, batch_size=4)
    tally.count(
        [
            task(TaskState.COMPLETED, 1, execution=run),
            task(TaskState.COMPLETED, 2, execution=run),
            task(TaskState.EXPIRED, 3, started_at=None),
            task(TaskState.FAILED, 4, error=TaskError("engine-error", "broke")),
            task(TaskState.RUNNING, 5),
            task(TaskState.QUEUED, 6, started_at=None, completed_at=None),
        ]
    )
    text = generate_latest(metrics.RECORDER).decode()
    of = 'model="tallied",priority="normal"'
    for line in (
        f'inferstack_tasks_finished_total{{{of},state="completed",version="3"}} 2.0',
        f'inferstack_tasks_finished_total{{{of},state="expired",version="3"}} 1.0',
        f'inferstack_task_duration_seconds_sum{{{of},state="failed",version="3"}} 1.5',
        f'inferstack_queue_wait_seconds_bucket{{le="0.25",{of},version="3"}} 3.0',
        f'inferstack_queue_wait_seconds_bucket{{le="0.1",{of},version="3"}} 0.0',
        'inferstack_batch_wait_seconds_count{model="tallied",version="3"} 2.0',
        'inferstack_dead_letters_total{error="engine-error",model="tallied",version="3"} 1.0',
    ):
        assert line in text


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (TaskState.COMPLETED, "DEBUG"),
        (TaskState.CANCELLED, "INFO"),
        (TaskState.EXPIRED, "INFO"),
        (TaskState.FAILED, "WARNING"),
    ],
)
def test_an_end_is_as_loud_as_it_is_bad(
    state: TaskState, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "inferstack.recorder.tally")
    error = TaskError("engine-error", "broke") if state is TaskState.FAILED else None
    tally.count([task(state, 7, error=error, attempts=2)])
    (record,) = caplog.records
    assert record.levelname == level
    assert record.message == ("failed: broke" if error else state)
    told = vars(record)
    assert (told["task_id"], told["attempts"], told["deployment"]) == ("id-7", 2, "tallied:3")


def test_what_nobody_reads_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "inferstack.recorder.tally")
    tally.count([task(TaskState.COMPLETED, 8), task(TaskState.EXPIRED, 9)])
    assert caplog.records == []
