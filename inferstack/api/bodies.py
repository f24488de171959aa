"""Reads submissions out of bodies, and refuses what would stop the event loop or a worker."""

from typing import Any

import msgspec

from inferstack.api.problems import invalid_body, wrong_field
from inferstack.errors import InvalidRequestError, UnsupportedMediaTypeError
from inferstack.lifecycle.types import Submission

MAX_DEPTH = 100
"""Levels of nesting in a body; every JSON library on the way to the model takes more."""

MAX_PARTS = 500_000
"""`[`, `{` and `:` in a body. Decoding and checking so many takes at most about 0.3 s."""

SMALL = 64 * 1024
"""A body of this many bytes cannot hold enough parts to matter."""

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


def read_submission(body: bytes) -> Submission:
    """The submission in a JSON body.

    Raises:
        InvalidRequestError: it is none; `errors` names the field.
    """
    _require_few_parts(body)
    try:
        submission = _submission.decode(body)
    except _DECODE_ERRORS as error:
        raise invalid_body(error) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _require_shallow("data", submission.data)
        _require_shallow("metadata", submission.metadata)
    return submission


def read_batch(body: bytes, limit: int) -> list[Submission | InvalidRequestError]:
    """The submissions in a JSON array, each read by itself.

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
        raise invalid_body(error) from None
    if not 1 <= len(items) <= limit:
        raise wrong_field("body", f"holds {len(items)} requests; it takes 1 to {limit}")
    return [_read_item(bytes(item)) for item in items]


def _read_item(item: bytes) -> Submission | InvalidRequestError:
    try:
        return read_submission(item)
    except InvalidRequestError as error:
        return error


def _require_few_parts(body: bytes) -> None:
    if len(body) <= SMALL:
        return
    if body.count(b"[") + body.count(b"{") + body.count(b":") > MAX_PARTS:
        raise wrong_field("body", f"holds more than {MAX_PARTS} lists, objects and fields")


def _require_shallow(field: str, value: Any) -> None:
    """Goes through the containers level by level."""
    level: list[Any] = [value] if isinstance(value, dict) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) in CONTAINERS
        ]
    raise wrong_field(field, f"is nested deeper than {MAX_DEPTH} levels")
