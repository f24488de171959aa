"""The HTTP server: uvicorn with our protocol, a socket that processes can share, a drain."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType

import uvicorn

from inferstack.api.edge import Edge
from inferstack.api.protocol import DirectProtocol
from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.queue.background import end
from inferstack.telemetry import metrics

log = logging.getLogger(__name__)

BACKLOG = 2048
DRAIN = 25.0
"""Seconds that requests in flight get after SIGTERM; Kubernetes waits 30 by default."""


LAST_WAIT = 5.0
"""Seconds that requests which wait for a task may go on waiting after SIGTERM.

Then they are answered with the receipt, long before anybody cuts their connections.
"""


class Server(uvicorn.Server):
    """uvicorn that closes overdue connections, and ends with status 0 after SIGTERM."""

    def __init__(self, edge: Edge) -> None:
        """Args: edge: what to serve; it is started and stopped here."""
        super().__init__(configure(edge))
        self._edge = edge
        self._exiting = asyncio.Event()
        metrics.HTTP_CONNECTIONS.set_function(lambda: len(self.server_state.connections))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGTERM and SIGINT."""
        super().handle_exit(sig, frame)
        self._exiting.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then listens; a signal ends that too.

        Raises:
            ConfigurationError: a service refuses the credentials.
        """
        starting = asyncio.ensure_future(self._edge.start())
        exiting = asyncio.ensure_future(self._exiting.wait())
        await asyncio.wait({starting, exiting}, return_when=asyncio.FIRST_COMPLETED)
        await end(exiting)
        await end(starting)
        if not starting.cancelled():
            starting.result()
            await super().startup(sockets)
            for listener in sockets or ():
                log.info("listening on %s:%d", *listener.getsockname()[:2])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then stops the application."""
        self._edge.drain(LAST_WAIT)
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._edge.stop()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; looks at the connections once a second."""
        if counter % 10 == 0:
            self._close_overdue(time.monotonic())
        return await super().on_tick(counter)

    def _close_overdue(self, now: float) -> None:
        for connection in tuple(self.server_state.connections):
            if not isinstance(connection, DirectProtocol):
                continue
            reason = connection.overdue(now)
            if reason is not None:
                metrics.HTTP_CONNECTIONS_ABORTED.labels(reason).inc()
                connection.cut_off(reason)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drains on SIGTERM and SIGINT; unlike uvicorn's own, does not raise them again."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


def configure(edge: Edge) -> uvicorn.Config:
    """How uvicorn serves an application."""
    return uvicorn.Config(
        edge,
        http=DirectProtocol,
        loop="uvloop",
        # `Server` does it: uvicorn takes no signal before the start has ended, however long it
        # takes, and writes a traceback where one line is due.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=int(DRAIN),
    )


def bind(settings: Settings) -> socket.socket:
    """The listening socket; with several API processes, one that all of them can bind.

    Raises:
        ConfigurationError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.api_processes > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}; set HOST or PORT"
        ) from None
    return listener


def serve(edge: Edge, listener: socket.socket) -> bool:
    """Serves until SIGTERM or SIGINT, then drains.

    Returns:
        Whether it ended because it was told to.

    Raises:
        ConfigurationError: a service refuses the credentials.
    """
    server = Server(edge)
    server.run(sockets=[listener])
    return server.should_exit
