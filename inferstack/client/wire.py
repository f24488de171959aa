"""Builds requests and reads answers. Pure: what happens in between is the callers' business."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from inferstack.client.errors import InvalidArgumentError, Problem, UnexpectedAnswerError
from inferstack.client.types import Model, Receipt, Submission, Task, TaskPage, Token

T = TypeVar("T")

JSON = {"content-type": "application/json"}
MAX_KEY = 255
"""Characters of an idempotency key."""
GRACE = 2.0
"""Seconds that an answer may be on its way when its caller's time is up."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    body: bytes | None = None
    hold: float = 0.0
    """Seconds for which the server may hold the answer back."""
    after: float = 0.0
    """Seconds to wait before it is sent."""
    patience: float | None = None
    """Seconds that its caller waits for the answer once it is sent; None sets no limit."""


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class _Models(msgspec.Struct):
    models: tuple[Model, ...]


class _ProblemBody(msgspec.Struct):
    type: str = "about:blank"
    title: str | None = None
    status: int = 500
    detail: str | None = None
    task_id: str | None = None
    retry_after: float | None = None
    errors: list[dict[str, str]] | None = None


def encode(value: Any) -> bytes:
    """A value as JSON.

    Raises:
        InvalidArgumentError: it cannot be that.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # A lone surrogate's own message would show the text around it, such as a password.
        reason = "a text is not Unicode" if isinstance(error, UnicodeError) else str(error)
        raise InvalidArgumentError(f"this cannot be sent as JSON: {reason}") from None


def decode(body: bytes, kind: type[T]) -> T:
    """The value in the body of an answer.

    Raises:
        UnexpectedAnswerError: it holds something else.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        start = body[:200].decode(errors="replace")
        raise UnexpectedAnswerError(f"{error}; the answer begins: {start}") from None


def query(filters: Mapping[str, Any]) -> dict[str, str]:
    """Filters as a query; those that are None are left out."""
    return {name: _as_text(value) for name, value in filters.items() if value is not None}


def in_path(task_id: str) -> str:
    """A task id as one part of a path."""
    return quote(_unicode(task_id), safe="")


def prefer(hold: float) -> dict[str, str]:
    """The header that asks for the result within `hold` seconds; none if that is 0."""
    seconds = f"{hold:.3f}".rstrip("0").rstrip(".")
    return {"prefer": f"wait={seconds}"} if seconds != "0" else {}


def submit(submission: Submission, key: str, hold: float = 0.0) -> Request:
    """Submits one task.

    Args:
        submission: what to compute.
        key: idempotency key; the same for every repetition of this submit.
        hold: seconds to wait for the finished task; 0 asks for a receipt.

    Raises:
        InvalidArgumentError: the submission is no JSON, or the key is no header.
    """
    headers = JSON | _key(key) | prefer(hold)
    body = encode(submission)
    return Request(method="POST", path="/api/inference", headers=headers, body=body, hold=hold)


def batch(submissions: Sequence[Submission], key: str) -> Request:
    """Submits many tasks under one idempotency key."""
    body = encode(submissions)
    headers = JSON | _key(key)
    return Request(method="POST", path="/api/inference/batch", headers=headers, body=body)


def get(task_id: str, hold: float = 0.0) -> Request:
    """Reads a task, after it finished or `hold` seconds passed."""
    return Request(method="GET", path=_task_path(task_id), headers=prefer(hold), hold=hold)


def limited(request: Request, left: float) -> Request:
    """The request for a caller who has this many seconds left once it is sent."""
    hold = min(request.hold, left)
    kept = {name: value for name, value in request.headers.items() if name != "prefer"}
    return msgspec.structs.replace(
        request, headers=kept | prefer(hold), hold=hold, patience=left + GRACE
    )


def cancel(task_id: str) -> Request:
    """Cancels a task."""
    return Request(method="DELETE", path=_task_path(task_id))


def history(**filters: Any) -> Request:
    """Reads a page of history; filters that are None are left out."""
    return Request(method="GET", path="/api/inference", query=query(filters))


def models() -> Request:
    """Reads which models there are."""
    return Request(method="GET", path="/api/models")


def login(username: str, password: str) -> Request:
    """Asks for an access token."""
    body = encode({"username": username, "password": password})
    return Request(method="POST", path="/api/auth/login", headers=JSON, body=body)


def read_task(response: Response) -> Task:
    """The task in an answer."""
    return decode(response.body, Task)


def read_submitted(response: Response) -> Task | Receipt:
    """What a submit came to: 200 is the task, 202 a receipt."""
    if response.status == 202:
        return read_receipt(response)
    return read_task(response)


def read_receipt(response: Response) -> Receipt:
    """The receipt in an answer, also when the task has finished already."""
    return decode(response.body, Receipt)


def read_batch(response: Response) -> tuple[Receipt | Problem, ...]:
    """One receipt or problem for each task of a batch, in order."""
    return read_each(response, Receipt)


def read_page(response: Response) -> TaskPage:
    """The page of history in an answer."""
    return decode(response.body, TaskPage)


def read_models(response: Response) -> tuple[Model, ...]:
    """The models in an answer."""
    return decode(response.body, _Models).models


def read_token(response: Response) -> Token:
    """The access token in an answer."""
    return decode(response.body, Token)


def read_each(response: Response, kind: type[T]) -> tuple[T | Problem, ...]:
    """What each item of an array is: one of a kind, or a problem."""
    items = decode(response.body, tuple[msgspec.Raw, ...])
    return tuple(_one_or_problem(bytes(item), kind) for item in items)


def read_problem(response: Response, now: datetime | None = None) -> Problem:
    """The problem that an answer with a status of 400 or more tells.

    Args:
        response: problem details, or any other body, as a proxy in between may send it.
        now: the time from which a `Retry-After` date counts; the present if None.
    """
    try:
        body = msgspec.json.decode(response.body, type=_ProblemBody)
    except msgspec.DecodeError:
        body = _ProblemBody()
    if body.retry_after is None:
        body.retry_after = _retry_after(response.headers, now or datetime.now(UTC))
    return _problem(response.status, body)


def _one_or_problem(item: bytes, kind: type[T]) -> T | Problem:
    try:
        return msgspec.json.decode(item, type=kind)
    except msgspec.ValidationError:
        body = decode(item, _ProblemBody)
        return _problem(body.status, body)


def _problem(status: int, body: _ProblemBody) -> Problem:
    return Problem(
        status,
        type=body.type,
        title=body.title,
        detail=body.detail,
        task_id=body.task_id,
        retry_after=body.retry_after,
        errors=body.errors,
    )


def _retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def _key(key: str) -> dict[str, str]:
    if not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        raise InvalidArgumentError(
            f"an idempotency key takes 1 to {MAX_KEY} printable ASCII characters"
        )
    return {"idempotency-key": key}


def _task_path(task_id: str) -> str:
    return f"/api/inference/{in_path(task_id)}"


def _as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else _unicode(str(value))


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError("a text is not Unicode, so it cannot be sent") from None
    return text
