"""Whether Celery's worker turns, and the end of a process whose worker does not."""

import logging
import os
import time
from collections.abc import Callable
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


class Liveness:
    """Asked for a sign of life by another thread.

    The event loop is to turn, but only while it is connected: Celery waits for its broker by
    sleeping in the same thread, and a restart would not bring the broker back. The clock is to
    turn once it has started.
    """

    def __init__(self, end_process: Callable[[int], object] = os._exit) -> None:
        """Says yes until `watch`.

        Args:
            end_process: called with an exit code when the process cannot go on.
        """
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
        return silent < PATIENCE

    def _turn(self) -> None:
        self._turned = time.monotonic()
