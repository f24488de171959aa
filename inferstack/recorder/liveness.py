"""Whether the recorder's jobs turn, and the end of a process in which one does not.

A PostgreSQL that stands still while its kernel answers never ends a statement, and one that waits
for it cannot be taken back. A new process finds the server that its name leads to by then.
"""

import logging
import os
import time
from collections.abc import Callable

from inferstack.storage.database import HOLD
from inferstack.telemetry.pulse import EXIT_STUCK

log = logging.getLogger(__name__)

STILL = 3.0 * HOLD
"""Seconds without a turn from which on a job counts as stuck: it may wait for a row for HOLD."""


class Liveness:
    """Asked for a sign of life."""

    def __init__(self, end_process: Callable[[int], object] = os._exit) -> None:
        """Says yes until a job that is under way turns no more.

        Args:
            end_process: called with an exit code when the process cannot go on.
        """
        self._end_process = end_process
        self._turned: dict[str, float] = {}

    def turned(self, job: str) -> None:
        """Notes that a job goes on."""
        self._turned[job] = time.monotonic()

    def rests(self, job: str) -> None:
        """A job has nothing to do until it turns again."""
        self._turned.pop(job, None)

    def __call__(self) -> bool:
        """Whether all jobs turn; ends the process when one does not.

        Not everywhere does somebody look at it, but everywhere it is started again.
        """
        now = time.monotonic()
        stuck = [job for job, at in self._turned.items() if now - at > STILL]
        if stuck:
            names = ", ".join(stuck)
            log.critical("stuck for more than %.0f s: %s; the process ends", STILL, names)
            self._end_process(EXIT_STUCK)
        return not stuck
