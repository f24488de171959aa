"""What replicas computed lately, by their heartbeats: the same at every API process."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from inferstack.deployment import ReplicaStatus
from inferstack.queue.statistics import QueueStatistics

WINDOW = 30.0
"""Seconds."""


class Work(NamedTuple):
    """Batches that ended in the window."""

    batches: int
    tasks: int
    seconds: float

    @property
    def batch_size(self) -> float | None:
        """Tasks in a batch, on average."""
        return round(self.tasks / self.batches, 2) if self.batches else None

    @property
    def batch_ms(self) -> float | None:
        """How long a batch took, on average."""
        return round(self.seconds / self.batches * 1000, 3) if self.batches else None


class _Beat(NamedTuple):
    at: float
    """By the clock of Redis."""
    status: ReplicaStatus


class Computed:
    """Remembers the heartbeats of the window."""

    def __init__(self) -> None:
        """Knows nothing before the second look."""
        self._beats: dict[str, deque[_Beat]] = {}

    def add(self, statistics: Mapping[str, QueueStatistics]) -> None:
        """Takes the latest statistics; the same ones again change nothing."""
        before, self._beats = self._beats, {}
        for queue in statistics.values():
            for status in queue.replicas:
                beats = before.get(status.worker, deque())
                if not beats or beats[-1].at < queue.at:
                    beats.append(_Beat(queue.at, status))
                while beats[0].at < queue.at - WINDOW:
                    beats.popleft()
                self._beats[status.worker] = beats

    def of(self, workers: Iterable[str]) -> Work:
        """What these replicas did together."""
        spans = [(beats[0].status, beats[-1].status) for beats in self._known(workers)]
        return Work(
            sum(last.batches - first.batches for first, last in spans),
            sum(last.tasks - first.tasks for first, last in spans),
            sum(last.computed - first.computed for first, last in spans),
        )

    def busy(self, worker: str) -> float | None:
        """Share of the time that a replica computed, 0 to 1; None before the second look."""
        for beats in self._known([worker]):
            seconds = beats[-1].at - beats[0].at
            if seconds > 0:
                # A batch counts as a whole when it ends.
                return min(1.0, round(self.of([worker]).seconds / seconds, 3))
        return None

    def _known(self, workers: Iterable[str]) -> list[deque[_Beat]]:
        return [self._beats[worker] for worker in workers if worker in self._beats]
