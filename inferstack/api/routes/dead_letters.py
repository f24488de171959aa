"""`/api/dead-letters`: failed tasks, and what to do with them."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from msgspec import Meta

from inferstack.api import dead_letter_views as views
from inferstack.api.bodies import read_json
from inferstack.api.queries import refuse_nul, seconds
from inferstack.api.routes.answers import Described, answer, content, described
from inferstack.api.routes.dependencies import CallerOf, ServicesOf
from inferstack.errors import wrong_field
from inferstack.lifecycle.dead_letters import UNCHANGED
from inferstack.lifecycle.redrive import Changes
from inferstack.storage.dead_letters import LetterFilter

router = APIRouter(prefix="/api/dead-letters", tags=["dead letters"])

Model = Annotated[str | None, Query(max_length=128, description="Of this model only.")]
ErrorType = Annotated[
    str | None, Query(max_length=128, description="Type of the error, such as `engine-error`.")
]
TIME = "ISO 8601 time or Unix seconds: tasks that failed "


class RedriveMany(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either `task_ids`, or a filter by which those that failed first are redriven."""

    task_ids: list[Annotated[str, Meta(max_length=64)]] | None = None
    model: Annotated[str, Meta(max_length=128)] | None = None
    error: Annotated[str, Meta(max_length=128)] | None = None
    since: Annotated[str, Meta(max_length=64)] | float | None = None
    """As in the list."""
    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    """100 if left out."""


def _with_example(schema: str, description: str, status: int = 200) -> Described:
    return described(schema, description, status, example=views.EXAMPLES[schema])


def _conflict(description: str) -> Described:
    return described("ProblemView", description, 409, media="application/problem+json")


def _body(schema: str, *, required: bool) -> dict[str, Any]:
    held = content(schema, example=views.EXAMPLES[schema])
    return {"requestBody": {"required": required, "content": held}}


UNARCHIVED = _conflict("It failed a moment ago and is not listed yet; `Retry-After` says when.")


@router.get(
    "", response_class=Response, responses=_with_example("DeadLetterPageView", "A page of them.")
)
async def list_dead_letters(
    services: ServicesOf,
    who: CallerOf,
    model: Model = None,
    error: ErrorType = None,
    since: Annotated[str | None, Query(max_length=64, description=f"{TIME}then or later.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The caller's failed tasks, the latest failure first; an admin reads everybody's."""
    refuse_nul(model=model, error=error, cursor=cursor)
    wanted = LetterFilter(model=model, error=error, since=_time(since, "since"))
    page = await services.dead_letters.list(who, wanted, limit, cursor)
    return answer(views.page_view(page, who))


@router.post(
    "/redrive",
    response_class=Response,
    responses=_with_example("RedrivesView", "A receipt or problem details for each."),
    openapi_extra=_body("RedriveMany", required=True),
)
async def redrive_many(request: Request, services: ServicesOf, who: CallerOf) -> Response:
    """Redrives up to 1,000 dead letters; one that is refused does not sink the others."""
    wanted = read_json(await request.body(), RedriveMany)
    named = wanted.task_ids
    if named is not None:
        if wanted != RedriveMany(task_ids=named):
            raise wrong_field("task_ids", "stands alone: give ids or a filter, not both")
        most = services.settings.max_batch_items
        if not 1 <= len(named) <= most:
            raise wrong_field("task_ids", f"holds {len(named)} ids; it takes 1 to {most}")
        answers = await services.dead_letters.redrive_all(who, named)
    else:
        if wanted == RedriveMany():
            raise wrong_field("body", "takes task_ids, or a filter of one field or more")
        refuse_nul(model=wanted.model, error=wanted.error)
        since = None if wanted.since is None else _time(str(wanted.since), "since")
        filters = LetterFilter(model=wanted.model, error=wanted.error, since=since)
        answers = await services.dead_letters.redrive_where(who, filters, wanted.limit or 100)
    return answer(views.redriven_view(answers, request.url.path))


@router.get(
    "/{task_id}",
    response_class=Response,
    responses=_with_example("DeadLetterDetailView", "The dead letter.") | UNARCHIVED,
)
async def read_dead_letter(task_id: str, services: ServicesOf, who: CallerOf) -> Response:
    """One failed task with its input; 404 says why if it is no dead letter."""
    return answer(views.detail_view(await services.dead_letters.get(who, task_id), who))


@router.post(
    "/{task_id}/redrive",
    status_code=202,
    response_class=Response,
    responses=_with_example("RedriveView", "The new task is accepted and durable.", 202)
    | _conflict("It failed a moment ago, or its input was not kept."),
    openapi_extra=_body("Changes", required=False),
)
async def redrive(task_id: str, request: Request, services: ServicesOf, who: CallerOf) -> Response:
    """Submits a failed task again as a new one; repeats give the same new task."""
    body = await request.body()
    changes = read_json(body, Changes) if body else UNCHANGED
    receipt = await services.dead_letters.redrive(who, task_id, changes)
    response = answer(views.redrive_view(receipt), 202)
    response.headers["location"] = f"/api/inference/{receipt.task_id}"
    if receipt.existing:
        response.headers["idempotency-replayed"] = "true"
    return response


@router.delete(
    "/{task_id}",
    response_class=Response,
    responses=_with_example("PurgeView", "It is gone.") | UNARCHIVED,
)
async def purge(task_id: str, services: ServicesOf, who: CallerOf) -> Response:
    """Removes a failed task and its input for good."""
    return answer(views.purge_view(await services.dead_letters.purge(who, task_id)))


@router.delete(
    "", response_class=Response, responses=_with_example("PurgeView", "How many are gone.")
)
async def purge_many(
    services: ServicesOf,
    who: CallerOf,
    model: Model = None,
    error: ErrorType = None,
    before: Annotated[str | None, Query(max_length=64, description=f"{TIME}earlier.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    everything: Annotated[bool, Query(description="Must be true if there is no filter.")] = False,
) -> Response:
    """Removes the caller's failed tasks that match, oldest first; an admin's call everybody's."""
    refuse_nul(model=model, error=error)
    if not everything and not any((model, error, before)):
        raise wrong_field("everything", "must be true to remove all, or give a filter")
    wanted = LetterFilter(model=model, error=error, before=_time(before, "before"))
    return answer(views.purge_view(await services.dead_letters.purge_where(who, wanted, limit)))


def _time(text: str | None, field: str) -> float | None:
    return None if text is None else seconds(text, field)
