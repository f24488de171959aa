"""The waits of callers for their tasks, which a drain can cut short."""

import asyncio
import math
from collections.abc import Callable


class Waits:
    """Ends each wait after its time, or earlier once `cut` was called."""

    def __init__(self) -> None:
        """No wait goes on yet."""
        self._ends: set[Callable[[], None]] = set()
        self._until = math.inf

    def begin(self, seconds: float, end: Callable[[], None]) -> asyncio.TimerHandle:
        """Calls `end` after `seconds` at the latest, unless `finish` comes first."""
        loop = asyncio.get_running_loop()
        self._ends.add(end)
        return loop.call_at(min(loop.time() + seconds, self._until), end)

    def finish(self, timer: asyncio.TimerHandle, end: Callable[[], None]) -> None:
        """The wait is over; takes what `begin` took and returned."""
        timer.cancel()
        self._ends.discard(end)

    def cut(self, seconds: float) -> None:
        """Lets no wait last longer than `seconds` from now on."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + seconds
        loop.call_at(self._until, self._end_all)

    def _end_all(self) -> None:
        for end in tuple(self._ends):
            end()
