"""The SDK and the API mean the same: what one writes, the other reads."""

import msgspec
import pytest

from inferstack import errors
from inferstack.api import views
from inferstack.api.bodies import read_submission
from inferstack.api.preferences import idempotency_key, wait_seconds
from inferstack.api.routes.models import Models
from inferstack.api.routes.models import _model as model_view
from inferstack.client import Problem, types, wire
from inferstack.client.flows import new_key
from inferstack.client.wire import Response
from inferstack.deployment import Deployment, DeploymentState
from inferstack.lifecycle.types import Caller, Receipt
from inferstack.storage.history import HistoryPage
from inferstack.task import Execution, Priority, Task, TaskError, TaskSpec, TaskState

CALLER = Caller(tenant="local", user="me")
SPEC = TaskSpec(
    task_id="7", model="echo", model_version=3, tenant="local", metadata={"a": 1}, cost=5.0
)
COMPLETED = Task(
    spec=SPEC,
    state=TaskState.COMPLETED,
    attempts=1,
    created_at=1_700_000_000.25,
    started_at=1_700_000_000.5,
    completed_at=1_700_000_001.0,
    execution=Execution("w", batch_wait_ms=1.0, compute_ms=2.0, batch_size=4),
    result=msgspec.Raw(b'{"x": [1.5]}'),
)


def answer(status: int, body: object) -> Response:
    return Response(status=status, headers={}, body=msgspec.json.encode(body))


def test_a_completed_task_keeps_every_field() -> None:
    task = wire.read_task(answer(200, views.task_view(COMPLETED, CALLER)))
    assert task.result == {"x": [1.5]}
    assert task.created_at is not None
    assert task.created_at.timestamp() == 1_700_000_000.25
    assert task.timings == types.Timings(250.0, 1.0, 2.0)
    assert (task.model, task.model_version, task.priority) == ("echo", 3, Priority.NORMAL)
    assert (task.batch_size, task.cost, task.metadata) == (4, 5.0, {"a": 1})
    assert task.processing_time == 0.5


def test_no_field_of_a_task_is_lost() -> None:
    sent = {field.name for field in msgspec.structs.fields(views.TaskView)}
    read = {field.name for field in msgspec.structs.fields(types.Task)}
    assert sent == read


def test_an_unfinished_and_a_failed_task_are_read() -> None:
    queued = Task(spec=SPEC, state=TaskState.QUEUED, created_at=1.0)
    failed = Task(spec=SPEC, state=TaskState.FAILED, error=TaskError("engine-error", "boom"))
    page = views.page_view(HistoryPage(tasks=[queued, failed], next_cursor="c"), CALLER)
    read = wire.read_page(answer(200, page))
    assert [task.finished for task in read.tasks] == [False, True]
    assert read.tasks[1].error == TaskError("engine-error", "boom")
    assert read.next_cursor == "c"


def test_a_batch_of_receipts_and_problems_is_read() -> None:
    receipt = Receipt(SPEC, TaskState.QUEUED, 4, 0.5, 1.0)
    refused = errors.QueueFullError(retry_after=2.0)
    read = wire.read_batch(answer(200, views.batch_view([receipt, refused], "/x")))
    assert read[0] == types.Receipt("7", TaskState.QUEUED, 4, 0.5)
    assert isinstance(read[1], Problem)
    assert (read[1].status, read[1].kind) == (503, "queue-full")
    assert read[1].retry_after is not None
    assert 2.0 <= read[1].retry_after <= 2.5


def test_every_error_of_the_server_is_read_as_it_was_meant() -> None:
    wrong = [{"field": "data", "message": "missing"}]
    for kind in (errors.InvalidInputError, errors.TenantQueueFullError, errors.TaskNotFoundError):
        error = kind("why", task_id="7", retry_after=1.5, errors=wrong)
        read = wire.read_problem(answer(error.status, error.problem("/api/inference")))
        assert (read.status, read.kind, read.detail) == (kind.status, kind.slug, "why")
        assert (read.task_id, read.retry_after, read.errors) == ("7", 1.5, wrong)


@pytest.mark.parametrize("timeout", [60.0, 0.5, None])
def test_every_option_of_a_submission_arrives(timeout: float | None) -> None:
    sent = types.Submission({"text": "a"}, "echo", 3, "high", timeout, {"k": "v"}, True)
    body = wire.submit(sent, new_key()).body
    assert body is not None
    read = read_submission(body)
    names = [field.name for field in msgspec.structs.fields(types.Submission)]
    assert [getattr(read, name) for name in names] == [getattr(sent, name) for name in names]


def test_what_is_not_set_means_the_same_on_both_sides() -> None:
    sent = types.Submission({"text": "a"})
    body = wire.submit(sent, new_key()).body
    assert body is not None
    read = read_submission(body)
    for field in msgspec.structs.fields(types.Submission):
        assert getattr(read, field.name) == getattr(sent, field.name), field.name


def test_the_headers_of_a_submit_are_taken() -> None:
    headers = wire.submit(types.Submission({}), new_key(), 12.3456789).headers
    assert idempotency_key(headers["idempotency-key"].encode())
    assert wait_seconds(headers["prefer"].encode(), b"", 60.0) == 12.346


def test_the_list_of_models_is_read() -> None:
    deployment = Deployment(model="echo", version=3, state=DeploymentState.READY, task="identity")
    listed = Models(models=[model_view(deployment, None, "echo")]).model_dump(mode="json")
    (model,) = wire.read_models(answer(200, listed))
    assert (model.model, model.version, model.state, model.task) == ("echo", 3, "ready", "identity")
    assert model.default
