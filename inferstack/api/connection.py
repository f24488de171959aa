"""One connection: bounded heads, problem details for what is no HTTP, no other protocols."""

import asyncio
import logging
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inferstack.api.edge import LINGER, Edge
from inferstack.api.exchange import Response
from inferstack.api.head import MAX_HEAD, MAX_URL, check_head, plain_head
from inferstack.api.problems import problem_response
from inferstack.concurrency import close_if_silent
from inferstack.errors import (
    BadRequestError,
    HeadersTooLargeError,
    InferstackError,
    UrlTooLongError,
)

log = logging.getLogger(__name__)

ARRIVAL = 0.5
"""Seconds, once the server ends, for the rest of a request that has begun to arrive, and from its
start for the first one of a connection."""


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, which by itself bounds no head and answers bad HTTP with plain text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes what uvicorn gives a protocol; the application must be an `Edge`."""
        super().__init__(*args, **kwargs)
        edge = self.config.app
        assert isinstance(edge, Edge), "a Connection serves an Edge"
        self._edge = edge
        self._meter = edge.hot.meter
        self._heads: dict[int, bytes] = {}
        self._default_headers: Any = None
        self.url = b""
        self._in_head = False
        self._held = 0
        """Bytes read since the parser last handed something over: it may hold them all."""
        self._refused = False
        self._young_until = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._young_until = self.loop.time() + ARRIVAL

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._held += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_reason(error))
        else:
            if self._held:
                self._bound_held()

    def _bound_held(self) -> None:
        """The parser holds what is not complete, and a client may never complete it."""
        if self._in_head and len(self.url) > MAX_URL:
            self._refuse(UrlTooLongError(f"the URL has more than {MAX_URL} bytes"))
        elif self._held > MAX_HEAD:
            what = "URL and header fields have" if self._in_head else "what is around a body has"
            self._refuse(HeadersTooLargeError(f"{what} more than {MAX_HEAD} bytes"))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parses the request again, as one that offers no other protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        head = plain_head(method, self.url, version, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.data_received(head + rest)

    # Parser callbacks. uvicorn's own build the ASGI scope first; that waits until it is needed.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self._in_head = True
        self._held = 0
        self._young_until = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header has arrived; what comes behind a chunked body is not one."""
        if self._in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Looks at a complete head.

        Raises:
            InferstackError: the request cannot be taken; it comes back from the parser.
        """
        self._in_head = False
        self._held = 0
        check_head(self.url, self.headers)
        if self.parser.get_method() == b"CONNECT":
            raise BadRequestError("this is no proxy")
        if not self.parser.should_upgrade():
            self._take()

    def _take(self) -> None:
        """Takes a request, as uvicorn does."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()
        if self._edge.leaving:
            self.answer_last()

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        # Behind the head of an offer the parser stops, as if the request ended there.
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def answer_last(self) -> None:
        """Closes the connection behind the answer that is due, if its head can still say so.

        Who reads a head without that may send the next request at once.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = False

    # Refusals.

    def _refuse(self, error: InferstackError) -> None:
        """Answers what is no whole request, and takes nothing more from this connection."""
        log.debug("refused: %s", error.detail)
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False  # What came before is answered, then nothing more.
                return
            # Whoever reads the body learns that there will be no more.
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.transport.close()
                return
        # `edge` may have answered what is too large before it was there.
        answered = cycle is not None and cycle.more_body and cycle.response_started
        if not answered:
            self._write_problem(error)
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.abort)

    def _write_problem(self, error: InferstackError) -> None:
        path = self.url.partition(b"?")[0][:200].decode("latin-1")
        response = problem_response(error, path)
        response.headers.append((b"x-request-id", self._meter.request_id({})))
        self._write(response, keep_alive=False)

    def shutdown(self) -> None:
        """The server ends; called once.

        A request that may be on its way has a moment to arrive, and is answered.
        """
        if self._in_head or self.loop.time() < self._young_until:
            self.loop.call_later(ARRIVAL, self._end)
        else:
            self._end()

    def _end(self) -> None:
        answers = self.cycle is not None and not self.cycle.response_complete
        if answers or self._in_head:
            super().shutdown()
        elif not close_if_silent(self.transport):
            self.loop.call_later(ARRIVAL, self._end)
        if self._refused and self.cycle is not None and self.cycle.more_body:
            self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long; `overdue` sees to what has come just now."""
        close_if_silent(self.transport)

    # Answers.

    def _write(self, response: Response, keep_alive: bool) -> None:
        body = response.body
        parts = [self._head(response.status)]
        for name, value in response.headers:
            parts += (name, b": ", value, b"\r\n")
        if not keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"content-length: %d\r\n\r\n" % len(body))
        parts.append(body)
        self.transport.write(b"".join(parts))

    def _head(self, status: int) -> bytes:
        """Status line and default headers; uvicorn replaces these once a second (the date)."""
        defaults = self.server_state.default_headers
        if defaults is not self._default_headers:
            self._default_headers = defaults
            self._heads = {}
        head = self._heads.get(status)
        if head is None:
            lines = b"".join(b"%b: %b\r\n" % header for header in defaults)
            head = self._heads[status] = STATUS_LINE[status] + lines
        return head


def _reason(error: httptools.HttpParserError) -> InferstackError:
    """Why the parser stopped: what a callback raised, or what it says itself."""
    raised = error.__context__
    if isinstance(raised, InferstackError):
        return raised
    if isinstance(error, httptools.HttpParserCallbackError):
        return BadRequestError("the URL is not valid")  # as uvicorn's own code found
    return BadRequestError(f"this is not valid HTTP: {error}")
