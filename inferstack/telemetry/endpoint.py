"""`/metrics` over HTTP for processes that serve no HTTP otherwise.

prometheus-client's own server takes a thread for each connection and cannot share a port. One
page, asked for every few seconds, needs no more than this.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST

log = logging.getLogger(__name__)

MOST_HEAD = 8192
"""Bytes of a request's head."""
PATIENCE = 5.0
"""Seconds that a client may take for its request, and for reading the answer."""
AGAIN = 1.0
"""Seconds until the next try where a connection cannot be taken, as without a file to spare."""


class Endpoint:
    """One port that answers `GET /metrics`, and closes the connection after each answer."""

    def __init__(self, page: Callable[[], Awaitable[bytes]]) -> None:
        """Listens to nothing yet.

        Args:
            page: makes the answer.
        """
        self._page = page
        self._listener: socket.socket | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port.

        Args:
            host: the address.
            port: 0 for any free one; another is shared with every process that asks for it.

        Raises:
            OSError: the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, port))
            listener.listen()
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._listen()
        return int(listener.getsockname()[1])

    async def stop(self) -> None:
        """Answers no more; no connection is left open."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        await asyncio.sleep(0)  # One that has not begun cannot close what it was given.
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=PATIENCE)

    # Not by asyncio's own server: one that is closed while it accepts leaves that connection open.
    def _listen(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # Another process has it, or nobody.
        except OSError as error:
            log.warning("cannot take a connection for the metrics: %s", error)
            loop.remove_reader(listener)
            loop.call_later(AGAIN, self._listen)
            return
        client.setblocking(False)
        task = loop.create_task(self._answer(client))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _answer(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client, limit=MOST_HEAD)
        try:
            with contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                async with asyncio.timeout(PATIENCE):
                    head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._response(head.partition(b"\r\n")[0]))
                writer.close()
                async with asyncio.timeout(PATIENCE):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()  # It is closed by now, or too slow.

    async def _response(self, line: bytes) -> bytes:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response(b"404 Not Found", b"text/plain", b"metrics are at /metrics\n")
        if method != b"GET":
            return _response(b"405 Method Not Allowed", b"text/plain", b"this path takes GET\n")
        try:
            page = await self._page()
        except Exception:
            log.exception("cannot show the metrics")
            return _response(b"500 Internal Server Error", b"text/plain", b"see the log\n")
        return _response(b"200 OK", CONTENT_TYPE_LATEST.encode(), page)


def _response(status: bytes, kind: bytes, body: bytes) -> bytes:
    length = b"content-length: %d" % len(body)
    head = (b"HTTP/1.1 " + status, b"content-type: " + kind, length, b"connection: close")
    return b"\r\n".join((*head, b"", body))
