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

from inferstack.client.load_connection import Connection
from inferstack.errors import ConfigurationError, InferstackError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
CONNECT_TOGETHER = 64
TICK = 0.001
"""Seconds between looks at the schedule: timers are no finer, and waiting for less spins."""
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


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


class LoadReport(msgspec.Struct, frozen=True):
    """What came back."""

    sent: int
    completed: int
    """Answers of any status, the warm-up left out."""
    duration: float
    """Seconds that `rate` is about."""
    rate: float
    """Answers per second while requests were being sent."""
    statuses: dict[int, int]
    errors: dict[str, int]
    """Requests without an answer: `timeout`, `connection-lost`, `protocol-error`."""
    latency_ms: dict[str, float]
    """`p50` to `p999`, `mean` and `max`; requests that timed out count with their age."""
    bytes_received: int

    @property
    def failed(self) -> int:
        """Requests without an answer or with a status of 400 or more."""
        bad = sum(count for status, count in self.statuses.items() if status >= 400)
        return bad + sum(self.errors.values())


def requests(load: Load) -> list[bytes]:
    """The requests as they go over the wire.

    Raises:
        ConfigurationError: the URL is not `http://`, or not this machine's.
    """
    url = urlsplit(load.url)
    if url.scheme != "http" or not url.hostname:
        raise ConfigurationError(f"the load generator takes http:// URLs, not {load.url!r}")
    if url.hostname not in LOOPBACK and not load.allow_remote:
        raise ConfigurationError(f"{url.hostname} is not this machine; say so if you mean it")
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
        self.reconnecting: set[asyncio.Task[None]] = set()

    def next_request(self) -> bytes:
        request = self.wire[self.sent % len(self.wire)]
        self.sent += 1
        self.under_way += 1
        return request

    def received(self, size: int) -> None:
        self.bytes_received += size

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


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Latencies in milliseconds by name; all 0 if there are none."""
    ordered = sorted(seconds)
    if not ordered:
        return dict.fromkeys([*PERCENTILES, "mean", "max"], 0.0)
    last = len(ordered) - 1
    found = {name: ordered[min(last, int(q * len(ordered)))] for name, q in PERCENTILES.items()}
    found["mean"], found["max"] = sum(ordered) / len(ordered), ordered[-1]
    return {name: round(value * 1000, 3) for name, value in found.items()}


async def run(load: Load) -> LoadReport:
    """Sends the load and waits for the answers.

    Raises:
        ConfigurationError: the URL is not one that may be loaded.
        UnreachableError: a connection cannot be made at the start.
    """
    return await _Run(load).go()


def run_blocking(load: Load) -> LoadReport:
    """`run` on an event loop of its own, uvloop's where it is installed.

    Raises:
        ConfigurationError: the URL is not one that may be loaded.
        UnreachableError: a connection cannot be made at the start.
    """
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(run(load))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(run(load))
