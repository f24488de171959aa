"""How long a request wants to wait, and other things that callers say in headers."""

import re
from functools import lru_cache
from urllib.parse import parse_qsl

from inferstack.errors import InvalidRequestError, wrong_field

MAX_KEY = 255
"""Characters of an idempotency key."""

_PREFERENCE = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
"""One of a list: a quoted string may hold commas, and one without an end goes on to the last."""
_SECONDS = re.compile(rb"\d{1,9}(?:\.\d{1,6})?")
_PRINTABLE = re.compile(rb"[\x20-\x7e]{1,255}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def wait_seconds(prefer: bytes | None, query: bytes, longest: float) -> float:
    """Seconds to wait: `?wait=N`, else `Prefer: wait=N` (RFC 7240), else 0; `longest` at most.

    Raises:
        InvalidRequestError: N is no number of seconds.
    """
    if query:
        wanted = _in_query(query)
        if wanted is not None:
            return min(wanted, longest)
    return min(_in_prefer(prefer), longest) if prefer else 0.0


@lru_cache(maxsize=256)
def _in_prefer(prefer: bytes) -> float:
    for part in _PREFERENCE.findall(prefer):
        name, _, value = part.partition(b";")[0].partition(b"=")
        if name.strip().lower() == b"wait":
            return _seconds(value.strip().strip(b'"'), "Prefer")
    return 0.0


@lru_cache(maxsize=256)
def _in_query(query: bytes) -> float | None:
    # Text and not bytes, which it takes for ASCII: a query may hold anything.
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name == "wait":
            return _seconds(value.encode(), "wait")
    return None


def _seconds(value: bytes, field: str) -> float:
    if not _SECONDS.fullmatch(value):
        raise wrong_field(field, "wait takes a number of seconds, 0 or more")
    return float(value)


@lru_cache(maxsize=256)
def applied(wait: float) -> tuple[bytes, bytes]:
    """The `Preference-Applied` header for a wait that was honoured."""
    return b"preference-applied", f"wait={wait:g}".encode()


def idempotency_key(value: bytes) -> str:
    """The text of an `Idempotency-Key` header.

    Raises:
        InvalidRequestError: it is empty, too long, or holds other than printable ASCII.
    """
    if not _PRINTABLE.fullmatch(value):
        raise _bad_key()
    return value.decode("ascii")


def _bad_key() -> InvalidRequestError:
    return wrong_field("Idempotency-Key", f"takes 1 to {MAX_KEY} printable ASCII characters")


def traceparent(value: bytes | None) -> str | None:
    """A W3C traceparent, or None where there is none that is valid: the standard says restart."""
    if value is None or not _TRACEPARENT.fullmatch(value):
        return None
    return value.decode("ascii")
