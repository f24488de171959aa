"""The outermost ASGI layer: limits, problem details, request ids, metrics, the hot routes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferstack.api.bodies import require_json
from inferstack.api.exchange import NO_STORE, Request, Response, header_map
from inferstack.api.hot import HotRoutes
from inferstack.api.problems import problem_response
from inferstack.api.ui import Ui
from inferstack.concurrency import end
from inferstack.errors import (
    BodiesBusyError,
    InferstackError,
    InvalidRequestError,
    PayloadTooLargeError,
    RequestTimeoutError,
)

log = logging.getLogger(__name__)

READ_DEADLINE = 30.0
"""Seconds in which a whole body must have arrived."""

LINGER = 2.0
"""Seconds for which what a refused client still sends is read and dropped.

Closing at once makes the kernel reset the connection, and the client may never see the answer.
"""

LARGE = 64 * 1024
"""Bytes of a body above which the hot routes are answered here, too: here it is counted."""

ARRIVING = 256 * 1024 * 1024
"""Bytes of unfinished bodies that this process holds at most: senders may be slow, and many."""

FORM_PATHS = frozenset({"/api/auth/login"})
"""Paths that also take a form, and check the content type themselves."""

CLOSE = (b"connection", b"close")
UNMATCHED = "unmatched"
UI_ROUTE = "/{ui}"

Hook = Callable[[], Awaitable[None]]


class Hooks(NamedTuple):
    """What whoever serves an application calls."""

    start: Hook
    """Awaited before the first request."""
    leave: Callable[[float], None]
    """Called when the process shall end: nothing may wait longer than so many seconds."""
    stop: Hook
    """Awaited after the last request."""


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole."""


class _Body:
    """The body of one request, while it arrives."""

    def __init__(self, receive: Receive) -> None:
        self.ended = False
        self._receive = receive

    async def next(self) -> bytes:
        """What has arrived since the last call.

        Raises:
            ClientGoneError: the connection has ended, and the body has not.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        self.ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    async def drop(self) -> None:
        """Reads on for a moment, so that the client gets to read what it was answered."""
        with contextlib.suppress(ClientGoneError, TimeoutError):
            async with asyncio.timeout(LINGER):
                while not self.ended:
                    await self.next()


class Edge:
    """The application that a server runs: the hot routes itself, FastAPI for the rest."""

    def __init__(self, inner: ASGIApp, hot: HotRoutes, ui: Ui, max_body: int, hooks: Hooks) -> None:
        """Wraps the FastAPI application.

        Args:
            inner: what answers everything else.
            hot: the hot routes.
            ui: the files of the web UI.
            max_body: bytes that a body may have.
            hooks: for whoever serves this.
        """
        self.inner = inner
        self.hot = hot
        self.max_body = max_body
        self.max_direct = min(LARGE, max_body)
        self.start, self._leave, self.stop = hooks
        self.leaving = False
        """Whether every answer closes its connection."""
        self._ui = ui
        self._arriving = 0
        self._meter = hot.meter

    def leave(self, seconds: float) -> None:
        """This process ends soon: from now on no request waits longer than `seconds` for a task."""
        self.leaving = True
        self._leave(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; lifespan goes straight to FastAPI."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        headers = header_map(list(scope["headers"]))
        only_head = scope["method"] == "HEAD"
        if only_head:
            # As GET; the server leaves out the body, by its own copy of the scope.
            scope = {**scope, "method": "GET"}
        request = Request(scope["method"], scope["path"], scope["query_string"], headers)
        start = time.perf_counter()
        if _has_body(headers):
            body = _Body(receive)
            try:
                request.body = await self._read(body, headers)
                _check_type(request)
            except ClientGoneError:
                return
            except InferstackError as error:
                await self._refuse(request, error, start, body, send)
                return
        matched = self.hot.match(request.method, request.path)
        if matched is not None:
            watching = asyncio.create_task(_watch(request, receive))
            response = await self._meter.answer(*matched, request)
            await end(watching)
            await _respond(response, send)
        elif (page := self._ui.match(request)) is not None:
            await _respond(await self._meter.answer(page, UI_ROUTE, request), send)
        else:
            await _Cold(self, request, start, only_head=only_head).run(scope, receive, send)

    async def _refuse(
        self, request: Request, error: InferstackError, start: float, body: _Body, send: Send
    ) -> None:
        """Answers; where the body has not ended, nothing can follow it on this connection."""
        response = problem_response(error, request.path)
        response.headers.append((b"x-request-id", self._meter.request_id(request.headers)))
        if not body.ended:
            response.headers.append(CLOSE)
        self._meter.observe(UNMATCHED, request.method, response.status, time.perf_counter() - start)
        await _respond(response, send, more_body=True)
        await body.drop()
        await send({"type": "http.response.body", "body": b""})

    async def _read(self, body: _Body, headers: dict[bytes, bytes]) -> bytes:
        """The whole body, counted while it arrives: a length may be missing or a lie."""
        too_large = PayloadTooLargeError(f"the body has more than {self.max_body} bytes")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit():
            raise InvalidRequestError("Content-Length is not a number")
        if int(declared) > self.max_body:
            raise too_large
        chunks, size = [], 0
        try:
            async with asyncio.timeout(READ_DEADLINE):
                while not body.ended:
                    chunk = await body.next()
                    size += len(chunk)
                    self._arriving += len(chunk)
                    if size > self.max_body:
                        raise too_large
                    if self._arriving > ARRIVING:
                        raise BodiesBusyError
                    chunks.append(chunk)
        except TimeoutError:
            raise RequestTimeoutError(
                f"the body did not arrive within {READ_DEADLINE:g} s"
            ) from None
        finally:
            self._arriving -= size
        return b"".join(chunks)


class _Cold:
    """One request that FastAPI answers."""

    def __init__(self, edge: Edge, request: Request, start: float, *, only_head: bool) -> None:
        self._only_head = only_head
        self._inner = edge.inner
        self._meter = edge.hot.meter
        self._request = request
        self._start = start
        self._status = 0
        self._unread = True

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def replay() -> Message:
            if self._unread:
                self._unread = False
                return {"type": "http.request", "body": self._request.body, "more_body": False}
            return await receive()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                request_id = self._meter.request_id(self._request.headers)
                headers = [*message["headers"], (b"x-request-id", request_id)]
                names = {name for name, _ in headers}
                if b"cache-control" not in names:
                    headers.append(NO_STORE)
                message["headers"] = headers
                if self._only_head and b"content-length" not in names:
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    # A stream would hold the connection up, and nobody listens.
                    raise ClientGoneError
            await send(message)

        self._meter.in_flight += 1
        try:
            await self._inner(scope, replay, marked)
        except ClientGoneError:
            pass
        except Exception as error:
            if self._status:
                raise
            await _respond(problem_response(error, self._request.path), marked)
        finally:
            self._meter.in_flight -= 1
            route: Any = scope.get("route")
            self._meter.observe(
                getattr(route, "path", UNMATCHED),
                self._request.method,
                self._status,
                time.perf_counter() - self._start,
            )


async def _watch(request: Request, receive: Receive) -> None:
    """Waits until the client goes; then nobody may want the answer any more."""
    while (await receive())["type"] != "http.disconnect":
        pass
    request.abandon()


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _check_type(request: Request) -> None:
    if request.body and request.method != "GET" and request.path not in FORM_PATHS:
        require_json(request.headers.get(b"content-type"))


async def _respond(response: Response, send: Send, *, more_body: bool = False) -> None:
    length = (b"content-length", b"%d" % len(response.body))
    # A 304 has no body, and would belie the length of the one it stands for.
    headers = response.headers if response.status == 304 else [*response.headers, length]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": more_body})
