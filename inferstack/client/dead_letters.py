"""Dead letters on the wire: what callers ask for and what the API answers. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypedDict

import msgspec

from inferstack.client.errors import Problem
from inferstack.client.types import Receipt, Timings
from inferstack.client.wire import (
    JSON,
    Request,
    Response,
    decode,
    encode,
    in_path,
    query,
    read_each,
)
from inferstack.task import Priority

PATH = "/api/dead-letters"


class RedriveOptions(TypedDict, total=False):
    """What shall be other than in the dead letter, as keyword arguments."""

    model_version: int
    priority: Priority | str
    timeout: float | None
    """Seconds; None never expires."""


class DeadLetterError(msgspec.Struct, frozen=True):
    """Why a task failed."""

    type: str
    message: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A failed task that was neither redriven nor purged."""

    task_id: str
    model: str
    model_version: int
    priority: Priority
    tenant: str | None = None
    """Shown to admins."""
    error: DeadLetterError | None = None
    attempts: int = 0
    crashes: int = 0
    """How many replicas died with it in their batch."""
    worker: str | None = None
    failed_at: datetime | None = None
    created_at: datetime | None = None


class DeadLetterDetail(DeadLetter, frozen=True, kw_only=True):
    """A dead letter with everything that may say why it failed."""

    input: Any = None
    """None if it is too large to show, or was not kept."""
    input_bytes: int | None = None
    """None if it was not kept."""
    metadata: dict[str, Any] | None = None
    timeout: float | None = None
    timings: Timings | None = None
    batch_size: int | None = None
    traceback: str | None = None
    """The engine's; shown to admins."""
    redrive_of: str | None = None
    """The failed task that this one repeated."""


class DeadLetterPage(msgspec.Struct, frozen=True):
    """One page of dead letters, the latest failure first."""

    dead_letters: tuple[DeadLetter, ...]
    next_cursor: str | None = None
    """Pass it to `dead_letters` for the next page; None on the last one."""


class RedriveReceipt(Receipt, frozen=True):
    """The new task that repeats a dead letter."""

    redrive_of: str | None = None
    """The dead letter."""


class Purged(msgspec.Struct, frozen=True):
    """What a purge removed."""

    purged: int
    more: bool = False
    """Whether the limit or the server's patience ended it: call again."""


def dead_letters(filters: dict[str, Any]) -> Request:
    """Reads a page; filters that are None are left out."""
    return Request(method="GET", path=PATH, query=query(filters))


def dead_letter(task_id: str) -> Request:
    """Reads one."""
    return Request(method="GET", path=_item(task_id))


def redrive(task_id: str, changes: RedriveOptions) -> Request:
    """Redrives one; sending it again does no harm."""
    path = f"{_item(task_id)}/redrive"
    body = encode(changes) if changes else None
    return Request(method="POST", path=path, headers=JSON if changes else {}, body=body)


def redrive_many(task_ids: Sequence[str] | None, filters: dict[str, Any]) -> Request:
    """Redrives those that are named, or those that a filter finds."""
    given = {name: value for name, value in filters.items() if value is not None}
    wanted = given if task_ids is None else {**given, "task_ids": task_ids}
    body = encode(wanted)
    return Request(method="POST", path=f"{PATH}/redrive", headers=JSON, body=body)


def purge(task_id: str | None, filters: dict[str, Any]) -> Request:
    """Removes one, or those that a filter finds."""
    if task_id is not None:
        return Request(method="DELETE", path=_item(task_id))
    return Request(method="DELETE", path=PATH, query=query(filters))


def read_page(response: Response) -> DeadLetterPage:
    """The page in an answer."""
    return decode(response.body, DeadLetterPage)


def read_detail(response: Response) -> DeadLetterDetail:
    """The dead letter in an answer."""
    return decode(response.body, DeadLetterDetail)


def read_redriven(response: Response) -> RedriveReceipt:
    """The receipt in an answer."""
    return decode(response.body, RedriveReceipt)


def read_many(response: Response) -> tuple[RedriveReceipt | Problem, ...]:
    """One receipt or problem for each dead letter, in order."""
    return read_each(response, RedriveReceipt)


def read_purged(response: Response) -> Purged:
    """What a purge came to."""
    return decode(response.body, Purged)


def _item(task_id: str) -> str:
    return f"{PATH}/{in_path(task_id)}"
