"""The parts of httpx that both clients use: its settings, and its errors in our words."""

from typing import Any, TypedDict

import httpx

from inferstack.client.errors import UnreachableError
from inferstack.client.options import Target, Timeouts
from inferstack.client.wire import Request, Response

NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class HttpxSettings(TypedDict):
    """Arguments that `httpx.Client` and `httpx.AsyncClient` share."""

    base_url: str
    headers: dict[str, str]
    limits: httpx.Limits
    trust_env: bool
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
        follow_redirects=False,
    )


def httpx_arguments(request: Request, timeouts: Timeouts) -> dict[str, Any]:
    """The arguments of `request()` that send a request."""
    answer = timeouts.answer + request.hold
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.query),
        "headers": dict(request.headers),
        "content": request.body,
        # A call waits for a free connection as long as the calls before it take.
        "timeout": httpx.Timeout(answer, connect=timeouts.connect, pool=None),
    }


def read(response: httpx.Response) -> Response:
    """An answer of httpx as a plain value."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(status=response.status_code, headers=headers, body=response.content)


def unreachable(error: httpx.RequestError, target: Target) -> UnreachableError:
    """An error of httpx in our words."""
    reason = str(error) or type(error).__name__
    sent = not isinstance(error, NOTHING_SENT)
    return UnreachableError(f"{target.url} does not answer: {reason}", sent=sent)
