"""The cooler half of `/api/inference`: list, batch and cancel. The rest is in `hot`."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from inferstack.api import preferences, views
from inferstack.api.bodies import read_batch
from inferstack.api.queries import refuse_nul, seconds
from inferstack.api.routes.answers import answer, described, ref
from inferstack.api.routes.dependencies import CallerOf, HeadersOf, ServicesOf
from inferstack.storage.history import HistoryFilter
from inferstack.task import Priority, TaskState

router = APIRouter(prefix="/api/inference", tags=["inference"])

_ITEMS = {"type": "array", "items": ref("Submission"), "minItems": 1, "maxItems": 1000}
_EXAMPLE = [{"data": {"text": "one"}}, {"data": {"text": "two"}, "priority": "low"}]
_JSON = {"application/json": {"schema": _ITEMS, "example": _EXAMPLE}}
BATCH: dict[str, Any] = {"requestBody": {"required": True, "content": _JSON}}
TASK = described("TaskView", "The task as it is now.")


@router.get("", response_class=Response, responses=described("PageView", "A page of history."))
async def list_tasks(
    services: ServicesOf,
    who: CallerOf,
    status: TaskState | None = None,
    model: Annotated[str | None, Query(max_length=128)] = None,
    priority: Priority | None = None,
    since: Annotated[
        str | None, Query(description="ISO 8601 time or Unix seconds: tasks created then or later")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The caller's tasks, newest first, without their results; an admin reads everybody's."""
    refuse_nul(model=model, cursor=cursor)
    wanted = HistoryFilter(
        status=status,
        model=model,
        priority=priority,
        since=None if since is None else seconds(since, "since"),
        limit=limit,
        cursor=cursor,
    )
    page = await services.tasks.list(who, wanted)
    return answer(views.page_view(page, who))


@router.post(
    "/batch",
    response_class=Response,
    responses=described("BatchView", "A receipt or problem details for each request, in order."),
    openapi_extra=BATCH,
)
async def submit_batch(
    request: Request, headers: HeadersOf, services: ServicesOf, who: CallerOf
) -> Response:
    """Submits up to 1,000 tasks; a bad one does not sink the others."""
    items = await read_batch(await request.body(), services.settings.max_batch_items)
    trace = preferences.traceparent(headers.get(b"traceparent"))
    given = headers.get(b"idempotency-key")
    key = None if given is None else preferences.idempotency_key(given)
    answers = [*await services.tasks.submit_many(who, items, idempotency_key=key, trace=trace)]
    return answer(views.batch_view(answers, request.url.path))


@router.get(
    "/{task_id}/position",
    response_class=Response,
    responses=described("PositionView", "Where it stands."),
)
async def position(task_id: str, services: ServicesOf, who: CallerOf) -> Response:
    """Where a task stands in its queue now."""
    return answer(views.position_view(await services.tasks.position(who, task_id)))


@router.get(
    "/{task_id}/request",
    response_class=Response,
    responses=described("RequestView", "What `POST /api/inference` takes to do it again."),
)
async def read_request(task_id: str, services: ServicesOf, who: CallerOf) -> Response:
    """The request that made a task, input included; 409 if the input was not kept."""
    return answer(views.request_view(await services.tasks.request(who, task_id)))


@router.delete("/{task_id}", response_class=Response, responses=TASK)
@router.post("/{task_id}/cancel", response_class=Response, responses=TASK)
async def cancel(task_id: str, services: ServicesOf, who: CallerOf) -> Response:
    """Cancels a task: at once while it waits, cooperatively while it runs."""
    return answer(views.task_view(await services.tasks.cancel(who, task_id), who))
