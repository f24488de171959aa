"""The waits of callers for their tasks, which a drain can cut short."""

import asyncio
import math
from collections.abc import Callable

GRAIN = 0.02
"""Waits that end within so many seconds share a timer: nearly all are over long before it."""

End = Callable[[], None]


class Departure:
    """Whether a caller has gone before its answer."""

    def __init__(self) -> None:
        """The caller is there."""
        self.gone = False
        self._then: End | None = None

    def happened(self) -> None:
        """The caller has gone."""
        self.gone = True
        if self._then is not None:
            self._then()

    def then(self, end: End) -> None:
        """Calls `end` when the caller goes, or now if it has gone."""
        self._then = end
        if self.gone:
            end()


class Waits:
    """Ends each wait after its time, or earlier once `cut` was called."""

    def __init__(self) -> None:
        """No wait goes on yet."""
        self._ends: dict[int, set[End]] = {}
        self._until = math.inf

    def begin(self, seconds: float, end: End) -> int:
        """Calls `end` after `seconds`, up to GRAIN late, unless `finish` comes first.

        Returns:
            What `finish` takes.
        """
        loop = asyncio.get_running_loop()
        slot = math.ceil(min(loop.time() + seconds, self._until) / GRAIN)
        ends = self._ends.get(slot)
        if ends is None:
            ends = self._ends[slot] = set()
            loop.call_at(slot * GRAIN, self._end, slot)
        ends.add(end)
        return slot

    def finish(self, slot: int, end: End) -> None:
        """The wait is over; takes what `begin` returned and took."""
        ends = self._ends.get(slot)
        if ends is not None:
            ends.discard(end)

    def cut(self, seconds: float) -> None:
        """Lets no wait last longer than `seconds` from now on."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + seconds
        loop.call_at(self._until, self._end_all)

    def _end(self, slot: int) -> None:
        for end in self._ends.pop(slot, ()):
            end()

    def _end_all(self) -> None:
        for slot in tuple(self._ends):
            self._end(slot)
