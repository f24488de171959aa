"""The recorder as a process: the archiving loop and its upkeep."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import generate_latest

from inferstack import failpoint
from inferstack.config import Settings, require
from inferstack.errors import ConfigurationError, InferstackError, StorageRefusedError
from inferstack.queue.connection import connect
from inferstack.queue.outbox import Outbox
from inferstack.queue.registry import Registry
from inferstack.queue.task_queue import TaskQueue, waits_for_time
from inferstack.recorder import spans, tally
from inferstack.recorder.deployments import Deployments
from inferstack.recorder.liveness import Liveness
from inferstack.recorder.recorder import Recorder
from inferstack.storage.database import Database
from inferstack.storage.history import History
from inferstack.storage.models import Models
from inferstack.task import Task
from inferstack.telemetry import metrics, pulse
from inferstack.telemetry.exposure import shown
from inferstack.telemetry.traces import Tracer

log = logging.getLogger(__name__)

REFRESH = 1.0
"""Seconds between two looks at the registry, and between two ticks."""
SELDOM = 30.0
"""Seconds between two looks at deployments that are gone, which become more and more."""


class RecorderProcess:
    """Runs a recorder for whatever deployments there are, until a signal."""

    def __init__(self, settings: Settings, liveness: Liveness | None = None) -> None:
        """Connects to nothing yet.

        Args:
            settings: of this process.
            liveness: ends the process when it is stuck.

        Raises:
            ConfigurationError: REDIS_URL or DATABASE_URL is missing or wrong.
        """
        require(settings, "redis_url", "database_url")
        failpoint.arm(settings)
        self._settings = settings
        self._redis = connect(str(settings.redis_url))
        self._database = Database.from_settings(settings)
        self._deployments = Deployments(Registry(self._redis), Models(self._database))
        self._outbox = Outbox(self._redis, (), settings)
        self._liveness = liveness or Liveness()
        self._recorder = Recorder(
            self._outbox,
            History(self._database),
            written=self._written,
            turned=lambda: self._liveness.turned("archive"),
        )
        self._tracer = Tracer.from_settings(settings)
        self._stopping = asyncio.Event()
        self._pulse: pulse.Pulse | None = None
        self._left_over: set[str] = set()

    async def run(self) -> None:
        """Archives until SIGTERM or SIGINT, then what is still waiting, and returns.

        Raises:
            ConfigurationError: Redis or PostgreSQL refuses the credentials.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        jobs = [
            asyncio.create_task(self._recorder.run()),
            asyncio.create_task(self._every(REFRESH, self._refresh)),
            asyncio.create_task(self._every(REFRESH, self._tick)),
            asyncio.create_task(self._every(SELDOM, self._look_at_gone)),
        ]
        # What is imported stays. A batch makes thousands of objects, and without this every
        # full collection walks all modules again: a sixth of the recorder's time.
        gc.collect()
        gc.freeze()
        if self._tracer is not None:
            self._tracer.start()
        log.info("recording")
        try:
            # None ends by itself before a stop: if one does, it raised, and all end with it.
            async with (
                shown("recorder", _exposition, self._settings),
                pulse.beating(
                    "recorder", self._settings.inferstack_home, self._liveness
                ) as self._pulse,
            ):
                await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
                self.stop()
                await asyncio.gather(*jobs)
        finally:
            if self._tracer is not None:
                await self._tracer.stop()
            await self._redis.aclose()
            await self._database.close()
        log.info("stopped")

    async def _refresh(self) -> None:
        """Once Redis and PostgreSQL have answered this, the recorder is ready."""
        try:
            await self._deployments.refresh()
        finally:
            self._outbox.follow(self._deployments.names)
        if self._pulse is not None:
            self._pulse.ready()

    def _written(self, tasks: Sequence[Task]) -> None:
        tally.count(tasks)
        if self._tracer is not None:
            spans.trace(self._tracer, tasks)

    def stop(self) -> None:
        """Asks `run` to finish."""
        self._stopping.set()
        self._recorder.stop()

    async def _every(self, seconds: float, job: Callable[[], Awaitable[None]]) -> None:
        """Repeats a job until the stop, also one that fails.

        Raises:
            ConfigurationError: a service refuses the credentials.
        """
        failing = False
        name = job.__name__.strip("_")
        while not self._stopping.is_set():
            self._liveness.turned(name)
            try:
                await job()
                failing = False
            except (ConfigurationError, StorageRefusedError) as error:
                raise ConfigurationError(str(error)) from error
            except InferstackError as error:
                if not failing:
                    log.warning("%s waits: %s", name, error)
                failing = True
            self._liveness.rests(name)
            try:
                await asyncio.wait_for(self._stopping.wait(), seconds)
            except TimeoutError:
                continue

    async def _look_at_gone(self) -> None:
        """Finds those whose tasks are not over, to tick them too."""
        gone = self._deployments.names - self._deployments.registered
        self._left_over = await waits_for_time(self._redis, sorted(gone))

    async def _tick(self) -> None:
        """Moves deadlines, retries and leases on. Replicas do it too, while any is alive."""
        for name in self._deployments.registered | self._left_over:
            _, _, reaped, crashed = await TaskQueue(self._redis, name, self._settings).tick()
            if again := reaped - crashed:
                model, _, version = name.rpartition(":")
                metrics.TASK_RETRIES.labels(model, version, "lease").inc(again)


def _exposition() -> bytes:
    return generate_latest(metrics.RECORDER)
