"""The HTTP server: uvicorn with our protocol, deadlines, a drain."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from types import FrameType

import uvicorn

from inferstack.api.connection import Connection
from inferstack.api.edge import Edge
from inferstack.api.listener import hand_over
from inferstack.api.protocol import DEADLINES, DirectProtocol
from inferstack.concurrency import end, readable
from inferstack.telemetry import metrics

log = logging.getLogger(__name__)

BACKLOG = 2048
DRAIN = 25.0
"""Seconds from SIGTERM until the last answer; Kubernetes waits 30 by default."""

FAREWELL = 3.0
"""Seconds after SIGTERM in which requests are still taken, and each answer closes its connection.

Whoever sends traffic here learns it from an answer or from readiness. To close at once would cut
connections under a request that is on its way.
"""

HANDOVER = 0.25
"""Seconds from the last new connection until the socket closes: all have been accepted by then,
or are within `LATE` more when the loop was held up."""

LATE = 1.0
"""See `HANDOVER`."""

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
        self._farewell_until: float | None = None
        metrics.HTTP_CONNECTIONS.set_function(lambda: len(self.server_state.connections))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called for SIGTERM, and for SIGINT: then everything ends here, and nobody takes over."""
        super().handle_exit(sig, frame)
        if sig == signal.SIGTERM and not self._exiting.is_set():
            self._farewell_until = time.monotonic() + FAREWELL
        elif sig == signal.SIGINT:
            self._farewell_until = None
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
        self._say_farewell()
        if self._farewell_until is not None:
            await self._accept_the_last(sockets or ())
        await super().shutdown(sockets)
        if not self.force_exit:
            await self._edge.stop()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; looks at the connections once a second."""
        now = time.monotonic()
        if counter % 10 == 0:
            self._close_overdue(now)
        if not await super().on_tick(counter):
            return False
        self._say_farewell()
        return self._farewell_until is None or now >= self._farewell_until

    def _say_farewell(self) -> None:
        """From now on this process is not ready, and each answer is the last of its connection."""
        if self._edge.leaving:
            return
        self._edge.leave(LAST_WAIT)
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.answer_last()

    async def _accept_the_last(self, listeners: Sequence[socket.socket]) -> None:
        """Listens no more, once no connection waits in a queue: it would be reset."""
        handed = [hand_over(listener) for listener in listeners]
        await asyncio.sleep(HANDOVER if all(handed) else 0)
        latest = time.monotonic() + LATE
        while time.monotonic() < latest:
            await asyncio.sleep(0)
            if not any(map(readable, listeners)):
                break
        for accepting in self.servers:
            accepting.close()
        await asyncio.sleep(0)  # The last one accepted is among the connections a turn later.

    def _close_overdue(self, now: float) -> None:
        for connection in tuple(self.server_state.connections):
            if not isinstance(connection, DirectProtocol):
                continue
            reason = connection.overdue(now)
            if reason is not None and connection.cut_off(reason):
                metrics.HTTP_CONNECTIONS_ABORTED.labels(reason).inc()

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
        # Nothing here speaks it; with whatever library is there an offer with a body would hang.
        ws="none",
        loop="uvloop",
        # `Server` does it: uvicorn takes no signal before the start has ended, however long it
        # takes, and writes a traceback where one line is due.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        # Of what FastAPI has answered; `DirectProtocol` sees to the rest. A gateway keeps idle
        # connections for a shorter time, and must be the one who closes them: a POST that meets a
        # connection which is closed just then is lost, and may not be sent again.
        timeout_keep_alive=int(DEADLINES["idle"]),
        timeout_graceful_shutdown=int(DRAIN - FAREWELL - HANDOVER - LATE),
    )


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
