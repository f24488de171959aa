"""A request and its response, free of any server interface.

The hot routes work on these. `edge` builds them from ASGI, `protocol` straight from the parser.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from inferstack.lifecycle.waits import Departure

Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
PROBLEM_TYPE = (b"content-type", b"application/problem+json")
NO_STORE = (b"cache-control", b"no-store")
"""Of every answer that says nothing else: caches do not know `X-API-Key` for a credential, and the
same URL has another answer for each tenant."""


class Request(msgspec.Struct):
    """A whole request: its body has been read."""

    method: str
    path: str
    query: bytes
    """What follows the question mark; empty if nothing does."""
    headers: dict[bytes, bytes]
    """Names in lower case; a list-valued header sent in several lines is joined by commas."""
    body: bytes = b""
    departure: Departure | None = None
    """Set by a handler that wants to know whether the client goes before the answer, or by the
    connection if the client has gone before the handler got that far."""

    def abandon(self) -> None:
        """The client has gone."""
        self.departure = self.departure or Departure()
        self.departure.happened()


class Response(NamedTuple):
    """A whole response; its length header is added when it is written."""

    status: int
    headers: Headers
    """Values have been checked: none holds a line break."""
    body: bytes


Handler = Callable[[Request], Awaitable[Response]]


def header_map(headers: Headers) -> dict[bytes, bytes]:
    """Headers by name; the values of a repeated one are joined as RFC 9110 5.3 says."""
    found = dict(headers)
    if len(found) == len(headers):
        return found
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return {name: b", ".join(several) for name, several in values.items()}
