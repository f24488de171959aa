"""Group commit: requests that arrive while commits are in flight form the next ones."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from inferstack import failpoint
from inferstack.errors import InferstackError, QueueUnavailableError
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Accepted, Submit
from inferstack.telemetry.logs import tell
from inferstack.telemetry.metrics import COMMIT_SECONDS, COMMIT_TASKS

log = logging.getLogger(__name__)

GROUP = 256
"""Most tasks in one script call: it bounds how long Redis is busy with one call."""

IN_FLIGHT = 4
"""Most commits in flight: while one is on its way, Redis and the replicas work on another."""

SPLIT = 32
"""Tickets that are not split up: below it, the cost of a call outweighs what runs side by side."""

MOST_WAITING = 20_000
"""Tickets that wait for a commit at most: saturation is an answer, not a hang."""

PATIENCE = 5.0
"""Seconds after which a commit that gets no answer is not repeated any more."""

RETRY_DELAYS = (0.05, 0.2, 0.5)
"""Seconds between repeats of a commit whose answer was lost; the ids make that safe."""


class Ticket(Protocol):
    """A request on its way into the queue, told what became of it."""

    submit: Submit

    def accepted(self, answer: Accepted) -> None:
        """The queue has answered."""

    def refused(self, error: InferstackError) -> None:
        """The queue could not be reached; whether the task exists is not known."""


def _tell(group: list[Ticket], answers: list[Accepted]) -> None:
    for ticket, answer in zip(group, answers, strict=True):
        spec = ticket.submit.spec
        tell(log, logging.DEBUG, f"submitted: {answer.status}", [spec.task_id], trace=spec.trace)


class GroupCommitter:
    """Puts one deployment's tickets into its queue, many at a time, a few commits in flight.

    No ticket waits on a timer: an idle committer commits a lone ticket at once.
    """

    def __init__(
        self,
        queue: TaskQueue,
        api: str,
        max_queue: int | None = None,
        *,
        patience: float = PATIENCE,
        delays: Sequence[float] = RETRY_DELAYS,
    ) -> None:
        """Starts nothing; the first ticket does.

        Args:
            queue: where tickets go.
            api: the completion channel of this process.
            max_queue: the deployment's own limit; the setting if None.
            patience: seconds after which a commit is not repeated any more.
            delays: seconds between repeats.
        """
        self._queue = queue
        self._api = api
        self._max_queue = max_queue
        self._patience, self._delays = patience, delays
        self._waiting: list[Ticket] = []
        self._committing: set[asyncio.Task[None]] = set()

    def add(self, ticket: Ticket) -> None:
        """Takes a ticket into the next commit, or refuses it when too many wait already."""
        if len(self._waiting) >= MOST_WAITING:
            ticket.refused(QueueUnavailableError("the queue is too slow", retry_after=1.0))
            return
        self._waiting.append(ticket)
        busy = len(self._committing)
        if busy < IN_FLIGHT and len(self._waiting) > SPLIT * busy:
            task = asyncio.get_running_loop().create_task(self._commit_all())
            self._committing.add(task)

    async def drain(self) -> None:
        """Returns when no ticket is left."""
        while self._committing:
            await asyncio.wait(self._committing)

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                size = min(GROUP, max(SPLIT, len(self._waiting) // IN_FLIGHT))
                group, self._waiting = self._waiting[:size], self._waiting[size:]
                await self._commit(group)
        finally:
            # Here and not in a callback: the next ticket may come before a callback does.
            self._committing.discard(asyncio.current_task())

    async def _commit(self, group: list[Ticket]) -> None:
        begun = time.perf_counter()
        failpoint.hit("before-enqueue")
        try:
            answers = await self._enqueue([ticket.submit for ticket in group])
            failpoint.hit("after-enqueue")
        except InferstackError as error:
            self._refuse(group, error)
        except Exception as error:
            log.exception("a commit failed")
            self._refuse(group, QueueUnavailableError("the queue failed", cause=str(error)))
        else:
            COMMIT_SECONDS.observe(time.perf_counter() - begun)
            COMMIT_TASKS.observe(len(group))
            for ticket, answer in zip(group, answers, strict=True):
                ticket.accepted(answer)
            if log.isEnabledFor(logging.DEBUG):
                _tell(group, answers)

    def _refuse(self, group: list[Ticket], error: InferstackError) -> None:
        """Refuses a group, and those behind it too when it is the queue that is away."""
        if isinstance(error, QueueUnavailableError):
            group, self._waiting = group + self._waiting, []
        for ticket in group:
            ticket.refused(error)

    async def _enqueue(self, submits: list[Submit]) -> list[Accepted]:
        begun, sent = time.monotonic(), None
        for delay in self._delays:
            try:
                return await self._queue.enqueue(
                    submits, self._api, self._max_queue, first_sent=sent
                )
            except QueueUnavailableError:
                if time.monotonic() - begun > self._patience:
                    raise
                await asyncio.sleep(delay)
                sent = begun
        return await self._queue.enqueue(submits, self._api, self._max_queue, first_sent=sent)
