"""Keeps work of one kind from taking all there is of something, such as database connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from inferstack.errors import InferstackError


class Slots:
    """So many at once, and so many more that wait; who comes then is refused at once."""

    def __init__(self, parallel: int, waiting: int, refusal: Callable[[], InferstackError]) -> None:
        """Limits what runs at once on the loop that uses it.

        Args:
            parallel: slots there are.
            waiting: how many may wait for one.
            refusal: makes the error of who may not wait.
        """
        self._free = asyncio.Semaphore(parallel)
        self._room = waiting
        self._refusal = refusal

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one of the slots.

        Raises:
            InferstackError: too many wait already; the error that was given.
        """
        if self._room <= 0:
            raise self._refusal()
        self._room -= 1
        try:
            await self._free.acquire()
        finally:
            self._room += 1
        try:
            yield
        finally:
            self._free.release()
