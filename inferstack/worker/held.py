"""The tasks that a replica holds, and calls to the queue that must get through."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from inferstack import retry
from inferstack.errors import InferstackError
from inferstack.lifecycle.replica import Lease

log = logging.getLogger(__name__)

T = TypeVar("T")


class Held:
    """Leases by task id. A lease that is lost or finished is no longer here."""

    def __init__(self) -> None:
        """Holds nothing."""
        self._leases: dict[str, Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, lease: Lease) -> bool:
        # By identity: the same task may be held again, with a newer attempt.
        return self._leases.get(lease.task_id) is lease

    def add(self, leases: Iterable[Lease]) -> None:
        """Takes in what was claimed."""
        for lease in leases:
            self._leases[lease.task_id] = lease

    def forget(self, leases: Iterable[Lease]) -> None:
        """Lets go of what is finished or given back."""
        for lease in leases:
            if lease in self:
                del self._leases[lease.task_id]

    def drop(self, task_id: str) -> bool:
        """Lets go of a task whatever its attempt; returns whether it was held."""
        return self._leases.pop(task_id, None) is not None

    def all(self) -> list[Lease]:
        """Every lease held."""
        return list(self._leases.values())


async def insist(what: str, call: Callable[[], Awaitable[T]]) -> T:
    """Repeats a replay-safe call until the queue and the store answer.

    Args:
        what: names the call in the log.
        call: makes one attempt.
    """
    attempt = 0
    while True:
        try:
            return await call()
        except InferstackError as error:
            if not error.retryable:
                raise
            attempt += 1
            log.warning("cannot %s, trying again: %s", what, error)
        # Full jitter on top of a floor, so that a dead server is not hammered.
        await asyncio.sleep(0.05 + retry.full_jitter(attempt, 0.1, 2.0, random.Random()))
