"""When each duty is due: a thread that sends it.

Celery's own clock would be a process that it forks beside the worker, and whose end or hang nobody
notices. This one is part of what `Liveness` watches.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

TURN = 1.0
"""Seconds between two turns at most."""
AGAIN = 5.0
"""Seconds after which a duty that could not be sent is sent again."""


class Clock:
    """Sends every duty at once, then each with its period."""

    def __init__(self, send: Callable[[str], object], periods: Mapping[str, float]) -> None:
        """Sends nothing yet.

        Args:
            send: called with the name of the duty that is due, in the clock's thread.
            periods: seconds between two turns of a duty, by its name.
        """
        self._send = send
        self._periods = periods
        self._stop = threading.Event()
        self._failing = False
        self._turned: float | None = None

    def start(self) -> None:
        """Sends from now on, until the process ends or `stop`."""
        self._turned = time.monotonic()
        threading.Thread(target=self._run, name="clock", daemon=True).start()

    def stop(self) -> None:
        """Sends nothing more."""
        self._stop.set()

    def silent_for(self) -> float:
        """Seconds since it turned last; 0 before `start`. From any thread."""
        return 0.0 if self._turned is None else time.monotonic() - self._turned

    def _run(self) -> None:
        due = dict.fromkeys(self._periods, time.monotonic())
        pause = 0.0
        while not self._stop.wait(pause):
            for name, at in due.items():
                if at <= time.monotonic():
                    every = self._periods[name]
                    due[name] = time.monotonic() + (every if self._sent(name) else AGAIN)
                # After each: a broker that hangs makes all of them slow, and no restart brings it.
                self._turned = time.monotonic()
            pause = max(0.0, min(TURN, min(due.values()) - time.monotonic()))

    def _sent(self, name: str) -> bool:
        try:
            self._send(name)
        except Exception as error:
            # Whatever it was: without the clock no duty would be done any more.
            if not self._failing:
                log.warning("%s is not sent, trying again: %s", name, error)
            self._failing = True
            return False
        self._failing = False
        return True
