"""The parts of httpx that both clients use: its settings, and its errors in our words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict
from urllib.parse import urlsplit

import httpx

from inferstack.client.errors import ClientError, InvalidArgumentError, UnreachableError
from inferstack.client.options import Target, Timeouts
from inferstack.client.wire import Request, Response

NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class HttpxSettings(TypedDict):
    """Arguments that `httpx.Client` and `httpx.AsyncClient` share."""

    base_url: str
    headers: dict[str, str]
    limits: httpx.Limits
    trust_env: bool
    verify: bool
    follow_redirects: bool


def httpx_settings(target: Target, max_connections: int) -> HttpxSettings:
    """How to set up httpx.

    Args:
        target: where the API is.
        max_connections: connections at the same time; more calls wait their turn.
    """
    return HttpxSettings(
        base_url=target.url,
        headers=target.headers,
        limits=httpx.Limits(
            max_connections=max_connections, max_keepalive_connections=max_connections
        ),
        trust_env=not target.local,
        # httpx takes 40 ms to load all certificates, which plain HTTP does not need.
        verify=urlsplit(target.url).scheme != "http",
        follow_redirects=False,
    )


def httpx_arguments(request: Request, timeouts: Timeouts) -> dict[str, Any]:
    """The arguments of `request()` that send a request."""
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.query),
        "headers": dict(request.headers),
        "content": request.body,
        "timeout": _timeout(request, timeouts),
    }


def _timeout(request: Request, timeouts: Timeouts) -> httpx.Timeout:
    answer, connect = timeouts.answer + request.hold, timeouts.connect
    if request.patience is not None:
        answer, connect = min(answer, request.patience), min(connect, request.patience)
    # Without a limit, a call waits for a free connection as long as the calls before it take.
    return httpx.Timeout(answer, connect=connect, pool=request.patience)


def read(response: httpx.Response) -> Response:
    """An answer of httpx as a plain value."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(status=response.status_code, headers=headers, body=response.content)


@contextmanager
def translated(target: Target) -> Iterator[None]:
    """Turns errors of httpx into ours.

    Raises:
        InvalidArgumentError: the request cannot be sent as it is.
        UnreachableError: the API did not answer.
    """
    try:
        yield
    except httpx.InvalidURL as error:
        raise InvalidArgumentError(f"this cannot be sent: {error}") from None
    except TimeoutError as error:
        raise UnreachableError(f"{target.url} does not answer in time", sent=True) from error
    except httpx.RequestError as error:
        # A LocalProtocolError quotes the header that it is about, which may be a token.
        quotes = isinstance(error, httpx.LocalProtocolError)
        reason = type(error).__name__ if quotes else str(error) or type(error).__name__
        sent = not isinstance(error, NOTHING_SENT)
        detail = f"{target.url} does not answer: {reason}"
        raise UnreachableError(detail, sent=sent) from error


def refuse_closed(closed: bool) -> None:
    """Raises ClientError if the client was closed."""
    if closed:
        raise ClientError("the client is closed: make a new one")
