"""Archives what changed: read the outbox, load the tasks, upsert them, acknowledge."""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from inferstack import failpoint
from inferstack.errors import InferstackError
from inferstack.queue.codec import UNREADABLE
from inferstack.queue.outbox import OutboxEntry
from inferstack.recorder import tally
from inferstack.retry import full_jitter
from inferstack.task import Task
from inferstack.telemetry.logs import tell
from inferstack.telemetry.metrics import ARCHIVE_FAILURES, ARCHIVE_SECONDS, ARCHIVED, OUTBOX_LAG

log = logging.getLogger(__name__)

BATCH = 1000
"""Changes that one read aims at. The cost of a batch is shared by all in it."""
CHUNK = 500
"""Tasks that are loaded and written at once: with bodies of 64 KiB that is 64 MiB at most."""
MAX_READ = 1000
"""Stream entries of one read; each tells of one or more changes."""
BLOCK_MS = 500
LINGER = 0.5
"""Seconds to wait after a small batch, so that the next one is larger.

Nobody waits for the archive: callers are answered from Redis. Every transaction costs an
fsync and every read some of Redis's time, so many tiny batches would take from the same
machine's requests what one large batch does not. It also lets a task finish meanwhile, and
then its queued and its completed state cost one row write instead of two.
"""
DRAIN = 10.0
"""Seconds that archiving goes on after a stop, if changes are still waiting."""
REMEMBER = 100_000
"""Finished tasks that are remembered once they are archived."""
SAME_END = 0.1
"""Seconds between the end of a task and its entry in the outbox at most: one script makes both."""


class Source(Protocol):
    """The outbox as the recorder needs it."""

    async def read(self, limit: int, block_ms: int) -> list[OutboxEntry]:
        """The oldest changes."""

    async def load(self, entries: Sequence[OutboxEntry]) -> list[Task | None]:
        """The current state of each entry's task."""

    async def archived(
        self, deployment: str, entries: Sequence[OutboxEntry], finished: Sequence[str]
    ) -> None:
        """Forgets changes, and soon the finished tasks."""


class Sink(Protocol):
    """The history as the recorder needs it."""

    async def upsert(self, tasks: Sequence[Task]) -> set[str]:
        """Stores tasks; returns the ids of those that were new to it."""


class Archived(NamedTuple):
    """What stays of a task once it is written; its bodies need not stay in memory."""

    deployment: str
    task_id: str
    completed_at: float | None
    """Seconds since the epoch by the clock of Redis; None while it is unfinished."""


class Ends:
    """When the tasks ended that were archived last, and up to where entries are acknowledged.

    Forgets the oldest ends beyond a limit.
    """

    def __init__(self, limit: int = REMEMBER) -> None:
        """Args: limit: tasks to remember."""
        self._limit = limit
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._acknowledged: dict[str, tuple[int, int]] = {}
        """The highest place in the stream of each deployment."""

    def covers(self, entry: OutboxEntry) -> bool:
        """Whether the change came before its task ended, and that end is archived.

        Two kinds of changes are of a Redis that forgot something in a failover, so that the task
        must be marked as archived there once more: one after the end, as the end is lost and the
        task goes on there, and one acknowledged before, as that is lost and the mark with it.
        """
        end = self._ends.get(entry.task_id)
        if end is None or self._came_back(entry):
            return False
        return _made_at(entry.entry_id) <= end + SAME_END

    def _came_back(self, entry: OutboxEntry) -> bool:
        # Reads begin with the oldest entry, so a Redis that lost nothing has none so low.
        return _place(entry.entry_id) <= self._acknowledged.get(entry.deployment, (0, 0))

    def add(self, entries: Sequence[OutboxEntry], tasks: Sequence[Archived]) -> None:
        """Remembers that these are acknowledged.

        Args:
            entries: what is gone from the outbox.
            tasks: what was archived of their tasks.
        """
        for deployment, entry_id in {(entry.deployment, entry.entry_id) for entry in entries}:
            highest = self._acknowledged.get(deployment, (0, 0))
            self._acknowledged[deployment] = max(highest, _place(entry_id))
        for task in tasks:
            if task.completed_at is not None:
                self._ends[task.task_id] = task.completed_at
                self._ends.move_to_end(task.task_id)
        while len(self._ends) > self._limit:
            self._ends.popitem(last=False)


class Recorder:
    """One archiving loop. Several may run: archiving twice does no harm."""

    def __init__(
        self,
        outbox: Source,
        history: Sink,
        *,
        linger: float = LINGER,
        written: Callable[[Sequence[Task]], None] = tally.count,
        turned: Callable[[], object] = lambda: None,
    ) -> None:
        """Does nothing before `run`.

        Args:
            outbox: where changes come from.
            history: where tasks go.
            linger: seconds to wait after a small batch.
            written: gets the tasks that it wrote, each end of a task once.
            turned: called again and again while it goes on, also while a service is away.
        """
        self._outbox = outbox
        self._history = history
        self._linger = linger
        self._written = written
        self._turned = turned
        self._limit = 64
        self._ends = Ends()
        self._stop = asyncio.Event()
        self._random = random.Random()
        self._failures = 0
        self._oldest: float | None = None
        """When the oldest change was made that was read and is not acknowledged yet."""
        OUTBOX_LAG.set_function(self._lag)

    def stop(self) -> None:
        """Asks `run` to archive what is waiting, for `DRAIN` seconds at most, and return."""
        self._stop.set()

    async def run(self) -> None:
        """Archives until `stop`. Waits out Redis and PostgreSQL when they are away."""
        while not self._stop.is_set():
            try:
                changes = await self.step(BLOCK_MS)
            except InferstackError as error:
                await self._back_off(error)
                continue
            self._recovered()
            if changes < BATCH // 2:
                await self._pause(self._linger)
        await self._drain()

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN
        try:
            while await self.step(block_ms=1):
                if time.monotonic() > deadline:
                    log.warning("stopped before the outbox was empty; the rest stays there")
                    return
        except InferstackError as error:
            log.warning("stopped before the outbox was empty; the rest stays there: %s", error)

    async def step(self, block_ms: int) -> int:
        """Archives one batch; returns how many changes it held, 0 if none came.

        Args:
            block_ms: how long to wait for the first change.

        Raises:
            QueueUnavailableError, StorageUnavailableError: nothing was acknowledged that is
                not archived; the same changes come again.
        """
        self._turned()
        entries = await self._outbox.read(self._limit, block_ms)
        made = {entry.entry_id for entry in entries}
        self._oldest = min(map(_made_at, made), default=None)
        if not entries:
            return 0
        self._aim(entries)
        wanted = self._latest(entries)
        archived: list[Archived] = []
        for start in range(0, len(wanted), CHUNK):
            self._turned()
            tasks = await self._load(wanted[start : start + CHUNK])
            begun = time.perf_counter()
            failpoint.hit("before-archive")
            new = await self._history.upsert(tasks)
            failpoint.hit("after-archive")
            ARCHIVE_SECONDS.observe(time.perf_counter() - begun)
            archived += [_archived(task) for task in tasks]
            self._written([task for task in tasks if task.spec.task_id in new])
        await self._acknowledge(entries, archived)
        self._oldest = None
        ARCHIVED.inc(len(archived))
        return len(entries)

    def _lag(self) -> float:
        return max(0.0, time.time() - self._oldest) if self._oldest else 0.0

    def _aim(self, entries: Sequence[OutboxEntry]) -> None:
        """Sizes the next read: an entry tells of one change or of hundreds."""
        reads = len({(entry.deployment, entry.entry_id) for entry in entries})
        self._limit = max(1, min(MAX_READ, BATCH * reads // len(entries)))

    def _latest(self, entries: Sequence[OutboxEntry]) -> list[OutboxEntry]:
        """One entry for each task that has something new to archive.

        Entries that are archived already are only acknowledged: a load gives the newest
        state, so an entry may be covered by what an earlier one brought.
        """
        latest = {entry.task_id: entry for entry in entries if not self._ends.covers(entry)}
        return list(latest.values())

    async def _load(self, entries: Sequence[OutboxEntry]) -> list[Task]:
        """The tasks that Redis still has; one that cannot be decoded does not stop the rest."""
        try:
            return [task for task in await self._outbox.load(entries) if task is not None]
        except UNREADABLE as error:
            if len(entries) == 1:
                # Its hash stays in Redis: it is not marked as archived.
                tell(log, logging.ERROR, f"cannot be read: {error}", [entries[0].task_id])
                ARCHIVE_FAILURES.labels("unreadable").inc()
                return []
        half = len(entries) // 2
        return await self._load(entries[:half]) + await self._load(entries[half:])

    async def _acknowledge(
        self, entries: Sequence[OutboxEntry], archived: Sequence[Archived]
    ) -> None:
        by_deployment: dict[str, list[OutboxEntry]] = {}
        for entry in entries:
            by_deployment.setdefault(entry.deployment, []).append(entry)
        for deployment, changes in by_deployment.items():
            tasks = [task for task in archived if task.deployment == deployment]
            finished = [task.task_id for task in tasks if task.completed_at is not None]
            await self._outbox.archived(deployment, changes, finished)
            # Only now: had it been remembered before a failed acknowledgement, the repeat
            # would not load the finished tasks, and they would stay in Redis for ever.
            self._ends.add(changes, tasks)

    async def _back_off(self, error: InferstackError) -> None:
        self._failures += 1
        ARCHIVE_FAILURES.labels(error.slug).inc()
        if self._failures == 1:
            log.warning("archiving waits, changes stay in the outbox: %s", error)
        await self._pause(0.1 + full_jitter(self._failures, base=0.2, cap=5.0, rng=self._random))

    def _recovered(self) -> None:
        if self._failures:
            log.info("archiving goes on after %d failed tries", self._failures)
        self._failures = 0

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


def _made_at(entry_id: bytes) -> float:
    """Seconds since the epoch, by the clock of Redis: an id begins with its milliseconds."""
    return int(entry_id.partition(b"-")[0]) / 1000


def _place(entry_id: bytes) -> tuple[int, int]:
    """The order of a stream: milliseconds since the epoch, and a number within those."""
    milliseconds, _, number = entry_id.partition(b"-")
    return int(milliseconds), int(number)


def _archived(task: Task) -> Archived:
    spec = task.spec
    return Archived(spec.deployment, spec.task_id, task.completed_at)
