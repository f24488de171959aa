"""The live overview: one sampler a process, shared by all who listen, and none while nobody does.

Queues, replicas and health are in memory anyway, sampled once a second whoever listens. Latencies
and devices come from the metrics of this machine's processes, which costs a scrape.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator

import msgspec

from inferstack.api.computed import Computed
from inferstack.api.exposition import Exposition
from inferstack.api.health import Monitor
from inferstack.api.latest import Latest
from inferstack.api.overview_sample import (
    HOST,
    Rated,
    components,
    deployments,
    devices,
    total_queue,
)
from inferstack.api.overview_views import OverviewHistory, OverviewPoint, OverviewSample
from inferstack.concurrency import end
from inferstack.lifecycle.tasks import Tasks

log = logging.getLogger(__name__)

PERIOD = 1.0
"""Seconds between two samples."""
SCRAPE_PERIOD = 2.0
SCRAPES = 15
"""Scrapes that percentiles are taken from: half a minute."""
HISTORY = 300
"""Points kept for those who come later: five minutes."""
LIFETIME = 600.0
"""Seconds after which a stream ends, so that its listener shows its credentials again."""

_encode = msgspec.json.Encoder().encode


class Overview:
    """Samples while somebody listens."""

    def __init__(self, tasks: Tasks, monitor: Monitor, exposition: Exposition) -> None:
        """Samples nothing yet."""
        self._tasks = tasks
        self._monitor = monitor
        self._exposition = exposition
        self._listeners = 0
        self._sampling: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._points: deque[OverviewPoint] = deque(maxlen=HISTORY)
        self._sample = b""
        self._fresh = asyncio.Event()
        """Set, and replaced, with every sample."""
        self._forget()

    @property
    def sampling(self) -> bool:
        """Whether anything runs."""
        return self._sampling is not None

    async def listen(self) -> AsyncGenerator[bytes, None]:
        """Server-sent events: `history` once, then `sample` every second.

        A listener that reads slowly misses samples; nothing piles up.
        """
        self._enter()
        try:
            yield _event("history", _encode(OverviewHistory([*self._points])))
            until = time.monotonic() + LIFETIME
            while not self._closed and time.monotonic() < until:
                await self._fresh.wait()
                if not self._closed:
                    yield _event("sample", self._sample)
        finally:
            self._leave()

    def close(self) -> None:
        """Ends every stream, since this process shall end."""
        self._closed = True
        self._fresh.set()

    async def stop(self) -> None:
        """Samples no more."""
        self.close()
        self._halt()
        for task in tuple(self._ending):
            await end(task)

    def _enter(self) -> None:
        self._listeners += 1
        if not self.sampling and not self._closed:
            self._forget()
            self._sampling = asyncio.create_task(self._run())

    def _forget(self) -> None:
        """Starts to compare anew: what was before is too long ago."""
        self._rated, self._computed, self._latest = Rated(), Computed(), Latest(SCRAPES)

    def _leave(self) -> None:
        self._listeners -= 1
        if self._listeners == 0:
            self._halt()

    def _halt(self) -> None:
        task, self._sampling = self._sampling, None
        if task is not None:
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            task.cancel()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._scrape_forever())
            group.create_task(self._sample_forever())

    async def _scrape_forever(self) -> None:
        while True:
            try:
                text = await self._exposition.text()
                await asyncio.to_thread(self._latest.add, text)
            except Exception:
                # The rest of the overview is as true without it.
                log.exception("cannot read the metrics for the overview")
            await asyncio.sleep(SCRAPE_PERIOD)

    async def _sample_forever(self) -> None:
        while True:
            try:
                sample = self._take()
                self._sample = _encode(sample)
            except Exception:
                # All who listen wait for the next one.
                log.exception("cannot take a sample for the overview")
            else:
                self._points.append(sample.point)
                fresh, self._fresh = self._fresh, asyncio.Event()
                fresh.set()
            await asyncio.sleep(PERIOD)

    def _take(self) -> OverviewSample:
        statistics = self._tasks.statistics()
        self._rated.add(statistics)
        self._computed.add(statistics)
        latest = self._latest
        point = OverviewPoint(
            at=round(time.time(), 3),
            queue=total_queue(statistics),
            rates=self._rated.total(),
            latency=latest.answers(200),
        )
        return OverviewSample(
            point=point,
            status=self._monitor.status(),
            uptime=round(time.time() - self._monitor.started_at, 1),
            host=HOST,
            accepted=latest.answers(202),
            components=components(self._monitor.findings()),
            deployments=deployments(
                self._tasks.deployments(), statistics, self._rated, self._computed
            ),
            devices=devices(statistics, latest),
        )


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
