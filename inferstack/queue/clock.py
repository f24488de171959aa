"""The time of Redis, as far as its answers tell it."""

import time


class RedisClock:
    """Tells what Redis will take for the time, without a look at the clock of this machine."""

    def __init__(self) -> None:
        """Redis has told nothing yet."""
        self._ahead: float | None = None

    @property
    def known(self) -> bool:
        """Whether Redis has told anything."""
        return self._ahead is not None

    def told(self, now_ms: float) -> None:
        """Redis says that it is `now_ms`: milliseconds since 1970."""
        self._ahead = now_ms - time.monotonic() * 1000

    def at(self, moment: float) -> int:
        """Milliseconds since 1970 that Redis reads at a moment of `time.monotonic()`, or fewer.

        An answer is as old as it was on its way, so it may be fewer by that.
        """
        return int(moment * 1000 + (self._ahead or 0.0))
