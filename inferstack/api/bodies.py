"""Reads submissions out of bodies, and refuses what would stop the event loop or a worker."""

import asyncio
from typing import Any, TypeVar

import msgspec

from inferstack.api.problems import invalid_body
from inferstack.errors import InvalidRequestError, UnsupportedMediaTypeError, wrong_field
from inferstack.lifecycle.types import Submission

T = TypeVar("T")

MAX_DEPTH = 100
"""Levels of nesting in a body; every JSON library on the way to the model takes more."""

MAX_PARTS = 250_000
"""`[`, `{` and `:` in a body. Decoding and checking so many takes at most about 0.3 s."""

MAX_VALUES = 1_000_000
"""`,` in a body: values in lists are cheaper, but not free."""

FEW_STRINGS = 10_000
"""Strings that can be cut out of a body quickly, to count only what stands between them."""

SMALL = 64 * 1024
"""A body of this many bytes cannot hold enough parts to matter."""

STRETCH = 256 * 1024
"""Bytes of a batch that are read before others may use the event loop."""

CONTAINERS = frozenset({dict, list})
"""Exactly what msgspec makes of arrays and objects; isinstance makes a walk four times slower."""

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_submission = msgspec.json.Decoder(Submission)
_batch = msgspec.json.Decoder(list[msgspec.Raw])


def require_json(content_type: bytes | None) -> None:
    """Lets only `application/json` pass, with or without parameters.

    Raises:
        UnsupportedMediaTypeError: it is something else, or missing.
    """
    if content_type == b"application/json":
        return
    media = (content_type or b"").partition(b";")[0].strip().lower()
    if media != b"application/json":
        given = media.decode("latin-1")[:80] or "none"
        raise UnsupportedMediaTypeError(f"the content type is {given}; it takes application/json")


def read_json(body: bytes, kind: type[T]) -> T:
    """What a JSON body holds; `edge` has looked at its content type.

    Args:
        body: the whole body.
        kind: what it must be.

    Raises:
        InvalidRequestError: it is something else; `errors` names the field.
    """
    _require_few_parts(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except _DECODE_ERRORS as error:
        raise invalid_body(error, body) from None


def read_submission(body: bytes) -> Submission:
    """The submission in a JSON body.

    Raises:
        InvalidRequestError: it is none; `errors` names the field.
    """
    _require_few_parts(body)
    try:
        submission = _submission.decode(body)
    except _DECODE_ERRORS as error:
        raise invalid_body(error, body) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _require_shallow("data", submission.data)
        _require_shallow("metadata", submission.metadata)
    return submission


async def read_batch(body: bytes, limit: int) -> list[Submission | InvalidRequestError]:
    """The submissions in a JSON array, each read by itself.

    Lets others use the event loop meanwhile.

    Args:
        body: the whole body.
        limit: submissions that a batch may hold.

    Raises:
        InvalidRequestError: it is no array, or an empty or a too long one.
    """
    _require_few_parts(body)
    try:
        items = _batch.decode(body)
    except _DECODE_ERRORS as error:
        raise invalid_body(error, body) from None
    if not 1 <= len(items) <= limit:
        raise wrong_field("body", f"holds {len(items)} requests; it takes 1 to {limit}")
    found, unread = [], STRETCH
    for item in map(bytes, items):
        found.append(_read_item(item))
        unread -= len(item)
        if unread < 0:
            unread = STRETCH
            await asyncio.sleep(0)
    return found


def _read_item(item: bytes) -> Submission | InvalidRequestError:
    try:
        return read_submission(item)
    except InvalidRequestError as error:
        return error


def _require_few_parts(body: bytes) -> None:
    if len(body) <= SMALL:
        return
    problem = _too_many(body)
    # One long text may hold as many commas and colons as it likes.
    if problem and body.count(b'"') - body.count(rb"\"") < 2 * FEW_STRINGS:
        problem = _too_many(_without_strings(body))
    if problem:
        raise wrong_field("body", problem)


def _too_many(body: bytes) -> str | None:
    if body.count(b"[") + body.count(b"{") + body.count(b":") > MAX_PARTS:
        return f"holds more than {MAX_PARTS} lists, objects and fields"
    if body.count(b",") > MAX_VALUES:
        return f"holds more than {MAX_VALUES} values"
    return None


def _without_strings(body: bytes) -> bytes:
    """What stands between the strings of a body that may be no JSON."""
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(plain.split(b'"')[::2])


def _require_shallow(field: str, value: Any) -> None:
    """Goes through the containers level by level."""
    level: list[Any] = [value] if isinstance(value, dict) else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in CONTAINERS
        ]
        if not level:
            return
    raise wrong_field(field, f"is nested deeper than {MAX_DEPTH} levels")
