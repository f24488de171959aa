"""A light HTTP load generator: keep-alive connections, closed loop or fixed rates.

With a fixed rate, latency counts from the time a request was due, not from when a
connection became free for it, so that a stalled server cannot hide the requests it
delayed (coordinated omission). A run is bounded by time and by count and stops by
itself.
"""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any, TypeVar
from urllib.parse import urlsplit

from inferstack.client import wire
from inferstack.client.errors import Problem
from inferstack.client.http1 import Frame
from inferstack.client.load_connection import Connection, UnreachableError
from inferstack.client.load_plan import Load, Step, due_times, requests
from inferstack.client.load_report import Answer, LoadReport, Tally, good

__all__ = [
    "Answer",
    "Load",
    "LoadReport",
    "Step",
    "UnreachableError",
    "requests",
    "run",
    "run_blocking",
    "run_steps",
    "run_steps_blocking",
]

T = TypeVar("T")

CONNECT_TOGETHER = 64
BUSY = frozenset({408, 429})
"""Refusals that say nothing against the request itself."""
TICK = 0.001
"""Seconds between looks at the schedule: timers are no finer, and waiting for less spins."""
RECONNECT = 0.5
"""Seconds until a connection that could not be made is tried again."""


class _Run:
    """The state of one run."""

    def __init__(self, load: Load, kept: list[Answer] | None = None) -> None:
        self.load = load
        self.kept = kept
        self.loop = asyncio.get_running_loop()
        self.wire = requests(load)
        self.expected = load.expected
        self.open: set[Connection] = set()
        self.idle: list[Connection] = []
        self.backlog: deque[float] = deque()
        self.tallies = [Tally() for _ in load.spans]
        self.dues = due_times(load.paced)
        self.paced = bool(load.paced)
        self.sent = self.under_way = self.scheduled = 0
        self.start = self.next_due = 0.0
        self.bounds = list(load.bounds)
        self.sending = False
        self.finished = asyncio.Event()
        self.problem: Problem | None = None
        self.reconnecting: set[asyncio.Task[None]] = set()

    @property
    def count_from(self) -> float:
        return self.bounds[0]

    @property
    def end(self) -> float:
        return self.bounds[-1]

    def tally(self, when: float) -> Tally:
        """Where what happens at a time, or was due then, counts; the warm-up goes to the first."""
        return self.tallies[bisect_right(self.bounds, when, 1, len(self.tallies)) - 1]

    def next_request(self, due: float) -> bytes:
        request = self.wire[self.sent % len(self.wire)]
        self.sent += 1
        self.under_way += 1
        self.tally(due).sent += 1
        return request

    def refused(self, status: int, body: bytes) -> None:
        if self.load.stop_at_problem and status not in BUSY and self.problem is None:
            self.problem = wire.read_problem(wire.Response(status=status, headers={}, body=body))
            self.sending = False
            self.finished.set()

    def unanswered(self, due: float, reason: str) -> None:
        self.under_way -= 1
        self.tally(due).failed(reason)

    async def go(self) -> list[LoadReport]:
        try:
            await self._connect_all()
            self._begin()
            latest = self.end - self.start + self.load.timeout
            with suppress(TimeoutError):
                await asyncio.wait_for(self.finished.wait(), latest)
        finally:
            await self._close()
        if self.problem is not None:
            raise self.problem
        return self._reports()

    async def _connect_all(self) -> None:
        for first in range(0, self.load.connections, CONNECT_TOGETHER):
            count = min(CONNECT_TOGETHER, self.load.connections - first)
            # All of them, also when one fails: what is still on its way could not be closed.
            connecting = (self._connect() for _ in range(count))
            for made in await asyncio.gather(*connecting, return_exceptions=True):
                if isinstance(made, BaseException):
                    raise made

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

    def _begin(self) -> None:
        self.start = time.perf_counter()
        self.bounds = [self.start + offset for offset in self.load.bounds]
        self.sending = True
        if self.paced:
            self.idle = list(self.open)
            self.next_due = self._following()
            self._pace()
            return
        self.loop.call_later(self.end - self.start, self._stop_sending)
        for connection in list(self.open):
            connection.send(time.perf_counter())

    def _pace(self) -> None:
        now = time.perf_counter()
        while self.sending and self.next_due <= now:
            if self.scheduled >= self.load.max_requests:
                self._stop_sending()
                return
            self.scheduled += 1
            self._offer(self.next_due)
            self.next_due = self._following()
        if self.next_due == inf and now >= self.end:
            self._stop_sending()
        elif self.sending:
            self.loop.call_later(max(min(self.next_due, self.end) - now, TICK), self._pace)

    def _offer(self, due: float) -> None:
        while self.idle and self.idle[-1].ended():
            self.idle.pop().drop()
        if self.idle:
            self.idle.pop().send(due)
        elif self.load.patience is not None and not self.open:
            self.tally(due).failed("unreachable")
        else:
            self.backlog.append(due)

    def _following(self) -> float:
        return self.start + next(self.dues, inf)

    def answered(
        self, due: float, answer: Frame, complete: bool, connection: Connection | None
    ) -> None:
        now = time.perf_counter()
        self.under_way -= 1
        if due >= self.count_from:
            tally = self.tally(due)
            tally.bytes_received += answer.end
            if complete:
                tally.answered(now - due, answer)
            else:
                tally.failed("not-completed", now - due)
        if complete and good(answer.status) and self.count_from <= now <= self.end:
            self.tally(now).good += 1
        if connection is not None:
            self._give_work(connection, now)
        self._check_finished()

    def _give_work(self, connection: Connection, now: float) -> None:
        self._give_up_late(now)
        if self.backlog:
            connection.send(self.backlog.popleft())
        elif self.sending and not self.paced and self.sent < self.load.max_requests:
            connection.send(now)
        else:
            self.idle.append(connection)

    def _give_up_late(self, now: float) -> None:
        patience = self.load.patience
        while patience is not None and self.backlog and now - self.backlog[0] > patience:
            self.tally(self.backlog.popleft()).unsent += 1

    def lost(self, connection: Connection) -> None:
        self.open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if self.sending or self.backlog:
            task = self.loop.create_task(self._reconnect())
            self.reconnecting.add(task)
            task.add_done_callback(self._reconnected)
        self._check_finished()

    def _reconnected(self, task: "asyncio.Task[None]") -> None:
        self.reconnecting.discard(task)
        self._check_finished()

    async def _reconnect(self) -> None:
        while True:
            try:
                connection = await self._connect()
                break
            except UnreachableError:
                if self.load.patience is None:
                    self._give_up()
                    return
            if not self.sending:
                return
            await asyncio.sleep(RECONNECT)
        self._give_work(connection, time.perf_counter())
        self._check_finished()

    def _give_up(self) -> None:
        self.tally(time.perf_counter()).failed("unreachable")
        if not self.open:
            self._stop_sending()

    def _stop_sending(self) -> None:
        self.sending = False
        self._check_finished()

    def _check_finished(self) -> None:
        over = not self.sending or self.sent >= self.load.max_requests
        more = self.backlog and (self.open or self.reconnecting)
        if over and self.under_way == 0 and not more:
            self.finished.set()

    async def _close(self) -> None:
        self.sending = False
        now = time.perf_counter()
        self._give_up_late(now)
        for due in [c.due for c in self.open if c.due is not None] + list(self.backlog):
            self.tally(due).failed("timeout", now - due)
        self.backlog.clear()
        for connection in list(self.open):
            connection.due = None
            if connection.transport is not None:
                connection.transport.abort()
        for task in self.reconnecting:
            task.cancel()
        await asyncio.gather(*self.reconnecting, return_exceptions=True)
        await asyncio.sleep(0)

    def _reports(self) -> list[LoadReport]:
        now = time.perf_counter()
        spans = zip(self.bounds, self.bounds[1:], strict=False)
        return [
            tally.report(max(0.0, min(end, now) - begin))
            for tally, (begin, end) in zip(self.tallies, spans, strict=True)
        ]


async def run(load: Load, kept: list[Answer] | None = None) -> LoadReport:
    """Sends the load and waits for the answers.

    Args:
        load: what to send.
        kept: where the good answers go, if they are wanted.

    Raises:
        ConfigurationError: the URL is not one that may be loaded.
        Problem: the first refusal, if that ends the run.
        UnreachableError: a connection cannot be made at the start.
    """
    return (await _Run(load, kept).go())[0]


async def run_steps(load: Load) -> list[LoadReport]:
    """Sends the load; what came of each of its steps, as `run` does it.

    A request counts in the step in which it was due, whenever its answer comes. `rate` is about
    the good answers that arrive during the step, whenever their requests were due.
    """
    return await _Run(load).go()


def run_blocking(load: Load, kept: list[Answer] | None = None) -> LoadReport:
    """`run` on an event loop of its own, uvloop's where it is installed."""
    return _blocking(lambda: run(load, kept))


def run_steps_blocking(load: Load) -> list[LoadReport]:
    """`run_steps` on an event loop of its own, uvloop's where it is installed."""
    return _blocking(lambda: run_steps(load))


def _blocking(start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(start())
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(start())
