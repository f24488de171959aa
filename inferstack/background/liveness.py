"""Whether Celery's worker turns, and the end of a process whose worker does not.

A duty that hangs is not seen by Celery, and its thread cannot be ended: a PostgreSQL that stands
still while its kernel answers leaves a statement waiting for ever.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from inferstack.background.clock import Clock
from inferstack.telemetry.pulse import EXIT_STUCK

log = logging.getLogger(__name__)

PERIOD = 2.0
"""Seconds between two turns that are noted."""
PATIENCE = 10.0
"""Seconds without one from which on the worker counts as stuck."""
LAST_PATIENCE = 60.0
"""Seconds after which a stuck process ends itself: not everywhere does somebody look at it, but
everywhere it is started again."""

LONGEST = 1800.0
"""Seconds for which every thread may be at the same duty: two of them may be long, and the others
take a minute at most."""


class UnderWay:
    """The duties that run now, as noted by their threads."""

    def __init__(self, threads: int) -> None:
        """Args: threads: how many run at once."""
        self._threads = threads
        self._since: dict[int, float] = {}

    @contextmanager
    def one(self) -> Iterator[None]:
        """A duty runs in this thread."""
        me = threading.get_ident()
        self._since[me] = time.monotonic()
        try:
            yield
        finally:
            del self._since[me]

    def stuck_for(self) -> float:
        """Seconds for which no thread has begun or ended a duty; 0 while one is free."""
        since = tuple(self._since.values())
        return time.monotonic() - max(since) if len(since) >= self._threads else 0.0


class Liveness:
    """Asked for a sign of life by another thread.

    The event loop is to turn, but only while it is connected: Celery waits for its broker by
    sleeping in the same thread, and a restart would not bring the broker back. The clock is to
    turn once it has started, and not all duties are to hang.
    """

    def __init__(self, duties: UnderWay, end_process: Callable[[int], object] = os._exit) -> None:
        """Says yes until `watch`.

        Args:
            duties: what runs.
            end_process: called with an exit code when the process cannot go on.
        """
        self._duties = duties
        self._end_process = end_process
        self._worker: Any = None
        self._clock: Clock | None = None
        self._turned = 0.0

    def watch(self, worker: Any, clock: Clock) -> None:
        """From now on the event loop of this worker counts, and this clock.

        Args:
            worker: a Celery worker that has not been started.
            clock: what sends; it may start later or never.
        """
        self._turned = time.monotonic()
        # Before it connects: Celery cancels what is scheduled later with the connection.
        worker.timer.call_repeatedly(PERIOD, self._turn)
        self._worker, self._clock = worker, clock

    def __call__(self) -> bool:
        """Whether it lives; ends the process when it has not for long."""
        consumer = getattr(self._worker, "consumer", None)
        if consumer is None or consumer.connection is None:
            self._turned = time.monotonic()
        clock = 0.0 if self._clock is None else self._clock.silent_for()
        silent = max(time.monotonic() - self._turned, clock)
        if silent > LAST_PATIENCE:
            log.critical("stuck for %.0f s: the process ends", silent)
            self._end_process(EXIT_STUCK)
        hang = self._duties.stuck_for()
        if hang > LONGEST:
            log.critical("every duty has hung for %.0f s: the process ends", hang)
            self._end_process(EXIT_STUCK)
        return silent < PATIENCE and hang <= LONGEST

    def _turn(self) -> None:
        self._turned = time.monotonic()
