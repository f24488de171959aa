"""One keep-alive connection of the load generator."""

import asyncio
from typing import Protocol, cast

from inferstack.client.http1 import Frame, ProtocolError, frame
from inferstack.client.load_report import Answer, good
from inferstack.concurrency import unread
from inferstack.errors import InferstackError


class UnreachableError(InferstackError):
    """The server cannot be reached."""

    slug = "unreachable"


class Owner(Protocol):
    """What a connection tells its run."""

    expected: bytes
    """What an answer of status 200 must hold."""
    sent: int
    """Requests that were sent."""
    kept: list[Answer] | None
    """Where good answers go; None if nobody wants them."""

    def next_request(self, due: float) -> bytes:
        """The next request as it goes over the wire."""

    def answered(
        self, due: float, answer: Frame, complete: bool, connection: "Connection | None"
    ) -> None:
        """A request was answered; the connection is free again unless it is None.

        Args:
            due: when it was due.
            answer: its status, and whether it says when to come back.
            complete: whether it holds what it must.
            connection: the one that brought it.
        """

    def refused(self, status: int, body: bytes) -> None:
        """The server answered a request with a status of 4xx."""

    def unanswered(self, due: float, reason: str) -> None:
        """A request will have no answer."""

    def lost(self, connection: "Connection") -> None:
        """The connection is gone."""


class Connection(asyncio.Protocol):
    """Has at most one request under way."""

    __slots__ = ("buffer", "due", "number", "owner", "transport")

    def __init__(self, owner: Owner) -> None:
        """Belongs to a run; `asyncio` connects it."""
        self.owner = owner
        self.buffer = b""
        self.due: float | None = None
        self.number = 0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def send(self, due: float) -> None:
        """Sends the next request, which was due at `due` (seconds of `perf_counter`)."""
        assert self.transport is not None
        self.due, self.number = due, self.owner.sent
        self.transport.write(self.owner.next_request(due))

    def ended(self) -> bool:
        """Whether the server has closed it: a request over it would be lost."""
        transport = self.transport
        return transport is None or transport.is_closing() or unread(transport)

    def data_received(self, data: bytes) -> None:
        """Takes what arrived; most answers arrive in one piece."""
        self.buffer = self.buffer + data if self.buffer else data
        self._take(closed=False)

    def _take(self, closed: bool) -> None:
        if self.due is None:
            return
        try:
            answer = frame(self.buffer, closed)
        except ProtocolError:
            self._fail("protocol-error")
            return
        if answer is None:
            return
        if 400 <= answer.status < 500:
            self.owner.refused(answer.status, self._body(answer))
        if self.owner.kept is not None and good(answer.status):
            self.owner.kept.append(Answer(self.number, answer.status, self._body(answer)))
        expected = self.owner.expected
        complete = answer.status != 200 or self.buffer.find(expected, 0, answer.end) >= 0
        self.buffer = self.buffer[answer.end :]
        due, self.due = self.due, None
        if answer.close or closed:
            self.owner.answered(due, answer, complete, None)
            self.drop()
        else:
            self.owner.answered(due, answer, complete, self)

    def _body(self, answer: Frame) -> bytes:
        return self.buffer[: answer.end].partition(b"\r\n\r\n")[2]

    def _fail(self, reason: str) -> None:
        assert self.due is not None
        due, self.due = self.due, None
        self.owner.unanswered(due, reason)
        self.drop()

    def drop(self) -> None:
        """Closes without waiting."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Settles the request under way: an answer may end with the connection."""
        if self.due is not None and exc is None:
            self._take(closed=True)
        if self.due is not None:
            due, self.due = self.due, None
            self.owner.unanswered(due, "connection-lost")
        self.transport = None
        self.owner.lost(self)
