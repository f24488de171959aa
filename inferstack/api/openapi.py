"""The OpenAPI document: FastAPI's own, with the hot routes and every problem added by hand."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from inferstack.api.dead_letter_views import (
    DeadLetterDetailView,
    DeadLetterPageView,
    PurgeView,
    RedriveView,
)
from inferstack.api.hot import COLLECTION, ITEM
from inferstack.api.openapi_examples import DESCRIPTION, RECEIPT, SUBMISSIONS, TASK, problem
from inferstack.api.overview_views import OverviewHistory, OverviewSample
from inferstack.api.routes.answers import content, ref
from inferstack.api.routes.auth import NewKey
from inferstack.api.routes.dead_letters import RedriveMany
from inferstack.api.views import PageView, PositionView, ReceiptView, RequestView, TaskView
from inferstack.lifecycle.redrive import Changes
from inferstack.lifecycle.types import Submission

PROBLEMS = {
    "401": ("Unauthorized", "The credentials are missing or not valid.", "unauthenticated"),
    "404": ("NotFound", "There is no such task, model or version.", "not-found"),
    "413": ("TooLarge", "The body is too large.", "payload-too-large"),
    "415": ("WrongType", "The content type is not application/json.", "unsupported-media-type"),
    "422": ("Invalid", "The request is not valid; `errors` names the fields.", "invalid-request"),
    "429": ("TenantFull", "The tenant has too many tasks waiting.", "tenant-queue-full"),
    "503": ("Unavailable", "The queue is full, or a service does not answer.", "queue-full"),
}
"""Component name, description and problem type of each error status."""

RETRY_STATUSES = frozenset({"429", "503"})
SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "An access token of `/api/auth/login`, or an API key.",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "password": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": "/api/auth/login", "scopes": {}}},
    },
}
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}, {"password": []}]


LETTERS = (DeadLetterPageView, DeadLetterDetailView, RedriveView, PurgeView, Changes, RedriveMany)


class ProblemView(msgspec.Struct):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    task_id: str | None = None
    retry_after: float | None = None
    errors: list[dict[str, str]] | None = None


VIEWS = (
    TaskView,
    ReceiptView,
    PositionView,
    RequestView,
    PageView,
    ProblemView,
    OverviewHistory,
    OverviewSample,
)


def install(app: FastAPI) -> None:
    """Makes the application serve `document`, built on first use."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = document(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    found = get_openapi(
        title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
    )
    paths = found["paths"]
    paths.setdefault(COLLECTION, {})["post"] = _submit()
    paths.setdefault(ITEM, {})["get"] = _read()
    for path in paths.values():
        for method, operation in path.items():
            _add_problems(operation, has_body=method == "post")
    components = found.setdefault("components", {})
    components.setdefault("schemas", {}).update(_schemas())
    components["securitySchemes"] = SCHEMES
    components["responses"] = {name: _response(status) for status, (name, _, _) in PROBLEMS.items()}
    components["schemas"].pop("HTTPValidationError", None)
    components["schemas"].pop("ValidationError", None)
    found["security"] = SECURITY
    return dict(sorted(found.items()))


def _schemas() -> dict[str, Any]:
    types = (Submission, NewKey, *VIEWS, *LETTERS)
    _, found = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return {
        **found,
        "BatchView": _answers_of("ReceiptView"),
        "RedrivesView": _answers_of("RedriveView"),
    }


def _answers_of(schema: str) -> dict[str, Any]:
    """An array in which each item may have been refused."""
    return {"type": "array", "items": {"anyOf": [ref(schema), ref("ProblemView")]}}


def _add_problems(operation: dict[str, Any], *, has_body: bool) -> None:
    open_to_all = operation.get("security") == []
    for status, (name, _, _) in PROBLEMS.items():
        if status in ("413", "415") and not has_body:
            continue
        if status == "401" and open_to_all and not has_body:
            continue
        known = operation["responses"].get(status)
        if known is None or status == "422":
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}


def _response(status: str) -> dict[str, Any]:
    _, description, slug = PROBLEMS[status]
    example = problem(int(status), description.rstrip("."), slug)
    held = content("ProblemView", "application/problem+json", example=example)
    answer: dict[str, Any] = {"description": description, "content": held}
    if status in RETRY_STATUSES:
        text = "After how many seconds to come back; it differs from caller to caller."
        answer["headers"] = {"Retry-After": _header("integer", text)}
    return answer


def _header(kind: str, description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _parameter(place: str, name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"in": place, "name": name, "description": description, "schema": schema}


def _waits() -> list[dict[str, Any]]:
    text = "`wait=N`: answer when the task has finished, or after N seconds."
    return [
        _parameter("header", "Prefer", text, {"type": "string", "examples": ["wait=10"]}),
        _parameter("query", "wait", "As `Prefer: wait=N`.", {"type": "number", "minimum": 0}),
    ]


def _json_answer(description: str, schema: str, example: dict[str, Any]) -> dict[str, Any]:
    applied = _header("string", "`wait=N`, where a wait was honoured.")
    return {
        "description": description,
        "headers": {
            "Preference-Applied": applied,
            "X-Request-ID": _header("string", "For logs."),
            "X-Task-Id": _header("string", "As `task_id`, for logs."),
        },
        "content": content(schema, example=example),
    }


def _submit() -> dict[str, Any]:
    key = "Repeats with the same key and body get the first task again; another body is refused."
    accepted = _json_answer("The task is accepted and durable.", "ReceiptView", RECEIPT)
    accepted["headers"]["Location"] = _header("string", "Where to read the task.")
    replayed = "`true` if an idempotency key found a task of before."
    accepted["headers"]["Idempotency-Replayed"] = _header("string", replayed)
    return {
        "tags": ["inference"],
        "summary": "Submit a task",
        "description": "Accepts a task durably. With a wait, answers with the finished task if "
        "it finishes in time; if not, the task lives on.",
        "operationId": "submit",
        "parameters": [
            *_waits(),
            _parameter("header", "Idempotency-Key", key, {"type": "string", "maxLength": 255}),
            _parameter("header", "traceparent", "W3C trace context.", {"type": "string"}),
        ],
        "requestBody": {"required": True, "content": content("Submission", examples=SUBMISSIONS)},
        "responses": {
            "200": _json_answer("The finished task.", "TaskView", TASK),
            "202": accepted,
        },
    }


def _read() -> dict[str, Any]:
    task_id = _parameter("path", "task_id", "A UUIDv7.", {"type": "string", "format": "uuid"})
    return {
        "tags": ["inference"],
        "summary": "Read a task",
        "description": "The task as it is now, or as it is when it finishes within the wait.",
        "operationId": "read",
        "parameters": [task_id | {"required": True}, *_waits()],
        "responses": {"200": _json_answer("The task.", "TaskView", TASK)},
    }
