"""A light HTTP load generator: keep-alive connections, closed loop or a fixed rate.

With a fixed rate, latency counts from the time a request was due, not from when a
connection became free for it, so that a stalled server cannot hide the requests it
delayed (coordinated omission). A run is bounded by time and by count and stops by
itself.
"""

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

from inferstack.client import wire
from inferstack.client.errors import Problem
from inferstack.client.load_connection import Connection
from inferstack.client.load_report import LoadReport, percentiles
from inferstack.errors import ConfigurationError, InferstackError

__all__ = ["Load", "LoadReport", "UnreachableError", "requests", "run", "run_blocking"]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
CONNECT_TOGETHER = 64
BUSY = frozenset({408, 429})
"""Refusals that say nothing against the request itself."""
TICK = 0.001
"""Seconds between looks at the schedule: timers are no finer, and waiting for less spins."""


class UnreachableError(InferstackError):
    """The server cannot be reached."""

    slug = "unreachable"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, how fast and for how long."""

    url: str
    bodies: Sequence[bytes] = ()
    """JSON bodies, sent in turn with POST; GET without a body if empty."""
    headers: dict[str, str] = {}
    connections: int = 64
    duration: float = 10.0
    """Seconds during which requests are sent."""
    rate: float | None = None
    """Requests per second; None keeps every connection busy."""
    warm_up: float = 0.0
    """Seconds at the start that are sent but not counted."""
    timeout: float = 30.0
    """Seconds to wait for what is still under way when sending ends."""
    max_requests: int = 5_000_000
    allow_remote: bool = False
    """Whether the server may be another machine than this one."""
    stop_at_problem: bool = False
    """Whether the first refusal of a request itself (4xx, but not 408 or 429) ends the run."""


def requests(load: Load) -> list[bytes]:
    """The requests as they go over the wire.

    Raises:
        ConfigurationError: the URL is not `http://`, or not this machine's.
    """
    url = urlsplit(load.url)
    if url.scheme != "http" or not url.hostname:
        raise ConfigurationError(f"the load generator takes http:// URLs, not {load.url!r}")
    if url.hostname not in LOOPBACK and not load.allow_remote:
        raise ConfigurationError(
            f"{url.hostname} is not this machine: load it with --allow-remote (allow_remote=True)"
        )
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    extra = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    if not load.bodies:
        return [f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n{extra}\r\n".encode()]
    return [
        f"POST {target} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n".encode()
        + body
        for body in load.bodies
    ]


class _Run:
    """The state of one run."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.loop = asyncio.get_running_loop()
        self.wire = requests(load)
        self.open: set[Connection] = set()
        self.idle: list[Connection] = []
        self.backlog: deque[float] = deque()
        self.latencies = array("d")
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.sent = self.under_way = self.scheduled = self.in_window = self.bytes_received = 0
        self.start = self.count_from = self.end = 0.0
        self.sending = False
        self.finished = asyncio.Event()
        self.problem: Problem | None = None
        self.reconnecting: set[asyncio.Task[None]] = set()

    def next_request(self) -> bytes:
        request = self.wire[self.sent % len(self.wire)]
        self.sent += 1
        self.under_way += 1
        return request

    def received(self, size: int) -> None:
        self.bytes_received += size

    def refused(self, status: int, body: bytes) -> None:
        if self.load.stop_at_problem and status not in BUSY and self.problem is None:
            self.problem = wire.read_problem(wire.Response(status=status, headers={}, body=body))
            self.sending = False
            self.finished.set()

    def unanswered(self, reason: str) -> None:
        self.under_way -= 1
        self.errors[reason] += 1

    async def go(self) -> LoadReport:
        await self._connect_all()
        self.start = time.perf_counter()
        self.count_from = self.start + self.load.warm_up
        self.end = self.count_from + self.load.duration
        self.sending = True
        self.loop.call_later(self.end - self.start, self._stop_sending)
        if self.load.rate is None:
            for connection in list(self.open):
                connection.send(time.perf_counter())
        else:
            self.idle = list(self.open)
            self._pace(self.load.rate)
        latest = self.end - self.start + self.load.timeout
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.finished.wait(), latest)
        finally:
            await self._close()
        if self.problem is not None:
            raise self.problem
        return self._report()

    async def _connect_all(self) -> None:
        for first in range(0, self.load.connections, CONNECT_TOGETHER):
            count = min(CONNECT_TOGETHER, self.load.connections - first)
            await asyncio.gather(*(self._connect() for _ in range(count)))

    async def _connect(self) -> Connection:
        url = urlsplit(self.load.url)
        try:
            _, connection = await self.loop.create_connection(
                lambda: Connection(self), url.hostname or "", url.port or 80
            )
        except OSError as error:
            raise UnreachableError(f"{url.netloc}: {error}") from error
        self.open.add(connection)
        return connection

    def _pace(self, rate: float) -> None:
        now = time.perf_counter()
        while self.sending and (due := self.start + self.scheduled / rate) <= now:
            if self.scheduled >= self.load.max_requests or due >= self.end:
                self._stop_sending()
                return
            self.scheduled += 1
            if self.idle:
                self.idle.pop().send(due)
            else:
                self.backlog.append(due)
        if self.sending:
            self.loop.call_later(max(due - now, TICK), self._pace, rate)

    def answered(self, due: float, status: int, connection: Connection | None) -> None:
        now = time.perf_counter()
        self.under_way -= 1
        if due >= self.count_from:
            self.latencies.append(now - due)
            self.statuses[status] += 1
        if self.count_from <= now <= self.end:
            self.in_window += 1
        if connection is not None:
            self._give_work(connection, now)
        self._check_finished()

    def _give_work(self, connection: Connection, now: float) -> None:
        if self.backlog:
            connection.send(self.backlog.popleft())
        elif self.sending and self.load.rate is None and self.sent < self.load.max_requests:
            connection.send(now)
        else:
            self.idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self.open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if self.sending or self.backlog:
            task = self.loop.create_task(self._reconnect())
            self.reconnecting.add(task)
            task.add_done_callback(self.reconnecting.discard)
        self._check_finished()

    async def _reconnect(self) -> None:
        try:
            connection = await self._connect()
        except UnreachableError:
            self.errors["unreachable"] += 1
            if not self.open:
                self._stop_sending()
            return
        self._give_work(connection, time.perf_counter())

    def _stop_sending(self) -> None:
        self.sending = False
        self._check_finished()

    def _check_finished(self) -> None:
        over = not self.sending or self.sent >= self.load.max_requests
        if over and self.under_way == 0 and not (self.backlog and self.open):
            self.finished.set()

    async def _close(self) -> None:
        self.sending = False
        now = time.perf_counter()
        late = [c.due for c in self.open if c.due is not None] + list(self.backlog)
        self.backlog.clear()
        for due in late:
            self.errors["timeout"] += 1
            self.latencies.append(now - due)
        for connection in list(self.open):
            connection.due = None
            if connection.transport is not None:
                connection.transport.abort()
        for task in self.reconnecting:
            task.cancel()
        await asyncio.sleep(0)

    def _report(self) -> LoadReport:
        window = min(self.end, time.perf_counter()) - self.count_from
        return LoadReport(
            sent=self.sent,
            completed=sum(self.statuses.values()),
            duration=round(window, 3),
            rate=self.in_window / window if window > 0 else 0.0,
            statuses=dict(self.statuses),
            errors=dict(self.errors),
            latency_ms=percentiles(self.latencies),
            bytes_received=self.bytes_received,
        )


async def run(load: Load) -> LoadReport:
    """Sends the load and waits for the answers.

    Raises:
        ConfigurationError: the URL is not one that may be loaded.
        Problem: the first refusal, if that ends the run.
        UnreachableError: a connection cannot be made at the start.
    """
    return await _Run(load).go()


def run_blocking(load: Load) -> LoadReport:
    """`run` on an event loop of its own, uvloop's where it is installed.

    Raises:
        ConfigurationError: the URL is not one that may be loaded.
        Problem: the first refusal, if that ends the run.
        UnreachableError: a connection cannot be made at the start.
    """
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(run(load))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run(load))
