"""Whether Celery's worker turns."""

import time
from typing import Any

PERIOD = 2.0
"""Seconds between two turns that are noted."""
PATIENCE = 10.0
"""Seconds without one from which on the worker counts as stuck."""


class Liveness:
    """Asked for a sign of life by another thread.

    The event loop is to turn, but only while it is connected: Celery waits for its broker by
    sleeping in the same thread, and a restart would not bring the broker back.
    """

    def __init__(self) -> None:
        """Says yes until `watch`."""
        self._worker: Any = None
        self._turned = 0.0

    def watch(self, worker: Any) -> None:
        """From now on the event loop of this worker counts.

        Args:
            worker: a Celery worker that has not been started.
        """
        self._turned = time.monotonic()
        # Before it connects: Celery cancels what is scheduled later with the connection.
        worker.timer.call_repeatedly(PERIOD, self._turn)
        self._worker = worker

    def __call__(self) -> bool:
        """Whether it lives."""
        consumer = getattr(self._worker, "consumer", None)
        if consumer is None or consumer.connection is None:
            self._turned = time.monotonic()
        return time.monotonic() - self._turned < PATIENCE

    def _turn(self) -> None:
        self._turned = time.monotonic()
