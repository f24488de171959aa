"""Hot routes straight from the HTTP parser: no ASGI objects, one write for each answer.

Only plain requests are taken: HTTP/1.1, a declared length within the limit, nothing else on its
way over the same connection. Everything else goes through uvicorn's own code and `edge`, to the
same handlers. docs/decisions has the measurement.
"""

import asyncio
import math
from typing import Any

from inferstack.api.connection import Connection
from inferstack.api.edge import READ_DEADLINE
from inferstack.api.exchange import Handler, Request, header_map
from inferstack.concurrency import close_if_silent
from inferstack.errors import RequestTimeoutError

DEADLINES = {"idle": 75.0, "head": 75.0, "body": READ_DEADLINE + 5.0, "write": 60.0}
"""Seconds that a client may take: until its next request, for its head, a body, to read an answer.

A body has a little longer than in `edge`, which can still answer 408.
"""

SPECIAL = frozenset({b"expect", b"transfer-encoding", b"upgrade"})
"""Headers that need more care than the short way takes."""


class _NoEvent:
    """Stands where uvicorn keeps the event that wakes a reader: nobody reads here."""

    def set(self) -> None:
        """Wakes nobody."""


class DirectExchange:
    """One request on the short way. Shaped like uvicorn's cycle, which its protocol looks at."""

    __slots__ = (
        "body",
        "disconnected",
        "handler",
        "keep_alive",
        "message_event",
        "more_body",
        "request",
        "response_complete",
        "route",
        "task",
    )

    response_started = False
    """A response is written as a whole, so what can still be changed has not begun."""

    def __init__(self, handler: Handler, route: str, request: Request, keep_alive: bool) -> None:
        """Args: keep_alive: whether the connection stays open afterwards."""
        self.handler = handler
        self.route = route
        self.request = request
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.more_body = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NoEvent()
        self.task: asyncio.Task[None] | None = None


class DirectProtocol(Connection):
    """A connection with a short way for the hot routes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what uvicorn gives a protocol; the application must be an `Edge`."""
        super().__init__(*args, **kwargs)
        self._direct: DirectExchange | None = None
        """The request that arrives; `_answering` is the one before it or the same."""
        self._answering: DirectExchange | None = None
        self._seen: tuple[object, str] | None = None
        self._since = 0.0

    # Parser callbacks.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._direct = None
        super().on_message_begin()

    def _take(self) -> None:
        """Chooses the way."""
        self._direct = direct = self._match()
        if direct is None:
            super()._take()
        else:
            self.cycle = direct  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        if self._direct is None:
            super().on_body(body)
        else:
            self._held = 0
            self._direct.body.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        direct = self._direct
        if direct is None:
            super().on_message_complete()
            return
        direct.more_body = False
        direct.request.body = b"".join(direct.body)
        direct.body.clear()
        self._answering = direct
        # The exchange holds the task, the connection holds the exchange.
        direct.task = self.loop.create_task(self._answer(direct))

    # The short way.

    def _match(self) -> DirectExchange | None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            return None
        path, _, query = self.url.partition(b"?")
        if b"%" in path or b"#" in self.url:
            return None
        parser = self.parser
        method = parser.get_method().decode("ascii")
        matched = self._edge.hot.match(method, path.decode("latin-1"))
        if matched is None or parser.get_http_version() != "1.1":
            return None
        headers = header_map(self.headers)
        length = headers.get(b"content-length", b"0")
        if not (length.isdigit() and int(length) <= self._edge.max_direct):
            return None
        if not SPECIAL.isdisjoint(headers) or self.limit_concurrency is not None:
            return None
        request = Request(method, path.decode("latin-1"), query, headers)
        keep_alive = parser.should_keep_alive() and not self._edge.leaving
        return DirectExchange(*matched, request, keep_alive)

    async def _answer(self, direct: DirectExchange) -> None:
        response = await self._meter.answer(direct.handler, direct.route, direct.request)
        direct.request.body = b""  # The connection holds the exchange until its next request.
        if self.flow.write_paused:
            await self.flow.drain()
        if self.transport.is_closing():
            return
        self._write(response, direct.keep_alive)
        direct.response_complete = True
        self._answering = None
        if not direct.keep_alive:
            self.transport.close()
        elif self.pipeline:
            self.on_response_complete()
        # No keep-alive timer as in uvicorn: `overdue` closes idle connections, for less.

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, perhaps before its answer."""
        if self._answering is not None:
            self._answering.request.abandon()
        super().connection_lost(exc)

    # Deadlines.

    def cut_off(self, stage: str) -> bool:
        """Ends a connection for which `overdue` told a stage; says so if it can.

        Returns:
            Whether it does: an idle one may have a request at last.
        """
        if stage == "body" and self._direct is not None:
            seconds = DEADLINES["body"]
            self._refuse(RequestTimeoutError(f"the body did not arrive within {seconds:g} s"))
        elif stage == "idle" and not self.transport.get_write_buffer_size():
            return close_if_silent(self.transport)
        else:
            self.transport.abort()
        return True

    def overdue(self, now: float) -> str | None:
        """What has lasted too long here: `head`, `body`, `write` or `idle`; else None.

        Costs a request nothing: the server looks at every connection once a second.

        Args:
            now: any clock that does not go back, in seconds.
        """
        cycle = self.cycle
        if self._refused and (cycle is None or cycle.more_body or cycle.response_complete):
            return None
        if self.flow.write_paused:
            stage = "write"
        elif cycle is None or cycle.response_complete:
            stage = "head" if self._in_head else "idle"
        else:
            stage = "body" if cycle.more_body else "answer"
        if self._seen != (cycle, stage):
            self._seen, self._since = (cycle, stage), now
        return stage if now - self._since > DEADLINES.get(stage, math.inf) else None
