"""How claimed tasks become batches. Pure.

The time of a batch is modelled as ``overhead + rate * n * longest``: a batch of `n` inputs is
padded to its longest one. Sorting by cost makes every optimal batch a run of neighbours, so the
best partition is found by dynamic programming over the sorted inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar


class Item(Protocol):
    """What the plan must know of a claimed task."""

    @property
    def cost(self) -> float:
        """Size in the model's own unit; a batch is padded to its largest."""

    @property
    def rank(self) -> int:
        """Lane of the task's priority, 0 first."""

    @property
    def suspect(self) -> bool:
        """Whether a replica died with it in its batch."""


T = TypeVar("T", bound=Item)


class CostModel(NamedTuple):
    """Predicted seconds of a batch: ``overhead + rate * n * longest``."""

    overhead: float = 1.0
    rate: float = 0.01

    def seconds(self, n: int, longest: float) -> float:
        """How long a batch of `n` inputs takes whose largest costs `longest`."""
        return self.overhead + self.rate * n * longest


@dataclass(frozen=True)
class Limits:
    """What bounds a batch."""

    max_size: int
    slack: float = 0.0
    """Share of compute time that may be given up so that first results come earlier."""
    lane_slack: float = 0.1
    """Share of compute time that may be given up to compute higher lanes apart and first."""
    max_seconds: float = 10.0
    """Predicted seconds of a batch of several, less the overhead: whoever waits in another batch
    waits no longer, and many inputs at their limit do not look like a stuck device together."""


class Batch(NamedTuple, Generic[T]):
    """What one call of `predict` gets."""

    items: list[T]
    longest: float
    """Cost that every item is padded to."""
    exclusive: bool = False
    """A suspect: nothing else may be under way on the replica while it computes."""


def plan(pending: Sequence[T], limits: Limits, model: CostModel) -> list[Batch[T]]:
    """Partitions claimed tasks into batches, in the order in which to run them.

    Every task is in exactly one batch. Suspects run alone and last. A higher lane runs
    first; it gets batches of its own unless that costs more than `limits.lane_slack`.

    Args:
        pending: the tasks that were claimed.
        limits: what bounds a batch.
        model: predicts how long a batch takes.
    """
    trusted = [item for item in pending if not item.suspect]
    batches = _by_lane(trusted, limits, model)
    if len(trusted) < len(pending):
        suspects = sorted((item for item in pending if item.suspect), key=lambda item: item.rank)
        batches += [Batch([item], item.cost, exclusive=True) for item in suspects]
    return batches


def seconds(batches: Sequence[Batch[T]], model: CostModel) -> float:
    """Predicted time of some batches, one after the other."""
    return sum(model.seconds(len(batch.items), batch.longest) for batch in batches)


def _by_lane(items: list[T], limits: Limits, model: CostModel) -> list[Batch[T]]:
    merged = partition(items, limits, model)
    ranks = {item.rank for item in items}
    if len(ranks) < 2:
        return merged
    separate: list[Batch[T]] = []
    for rank in sorted(ranks):
        separate += partition([item for item in items if item.rank == rank], limits, model)
    if seconds(separate, model) <= seconds(merged, model) * (1 + limits.lane_slack):
        return separate
    return sorted(merged, key=lambda batch: min(item.rank for item in batch.items))


def partition(items: list[T], limits: Limits, model: CostModel) -> list[Batch[T]]:
    """Partitions tasks of any cost into batches of the least total time, shortest first.

    The total is at most ``1 + limits.slack`` times the least possible.
    """
    if not items:
        return []
    first = items[0].cost
    if all(item.cost == first for item in items):
        return _even(items, limits, model)
    ordered = sorted(items, key=lambda item: item.cost)
    batches: list[Batch[T]] = []
    for start, end in _cuts([item.cost for item in ordered], limits.max_size, model):
        batches += _even(ordered[start:end], limits, model)
    return batches


def _cuts(costs: list[float], max_size: int, model: CostModel) -> list[tuple[int, int]]:
    """Optimal slices of ascending costs.

    best[i] is the least time for the first i inputs. Since best never falls, the search for
    the start of the last slice ends as soon as the slice alone takes as long as all of it.
    """
    overhead, rate = model
    best, start_of = [0.0], [0]
    for end, cost in enumerate(costs, start=1):
        lowest = max(0, end - max_size)
        padded = rate * cost
        least, choice = math.inf, lowest
        for start in range(end - 1, lowest - 1, -1):
            alone = overhead + padded * (end - start)
            if best[lowest] + alone >= least:
                break
            if best[start] + alone < least:
                least, choice = best[start] + alone, start
        best.append(least)
        start_of.append(choice)
    slices = []
    end = len(costs)
    while end:
        slices.append((start_of[end], end))
        end = start_of[end]
    return slices[::-1]


def _even(items: list[T], limits: Limits, model: CostModel) -> list[Batch[T]]:
    """Cuts sorted inputs into equal batches: as few as fit, more where `slack` allows."""
    alone = model.rate * items[-1].cost
    quick = limits.max_seconds / alone if alone else math.inf
    pieces = -(-len(items) // max(1, int(min(limits.max_size, quick))))
    spare = len(items) * alone * limits.slack
    if spare > 0:
        pieces = max(pieces, int(min(spare / max(model.overhead, 1e-9), len(items))))
    size, larger = divmod(len(items), pieces)
    batches, start = [], 0
    for piece in range(pieces):
        end = start + size + (piece < larger)
        batches.append(Batch(items[start:end], items[end - 1].cost))
        start = end
    return batches


class CostFit:
    """Fits a cost model to measured batches.

    Measurements are averaged per size class (powers of two of ``n * longest``), so that a long
    run of equal batches does not wash out what is known of other sizes.
    """

    DECAY = 0.2
    OUTLIER = 4.0

    def __init__(self) -> None:
        """Knows nothing yet."""
        self._classes: dict[int, tuple[float, float]] = {}
        self._model: CostModel | None = None

    def observe(self, n: int, longest: float, taken: float) -> None:
        """Takes in that a batch of `n` inputs padded to `longest` took `taken` seconds."""
        work = max(n * longest, 1e-9)
        taken = max(taken, 1e-7)
        key = math.frexp(work)[1]
        known = self._classes.get(key)
        if known:
            taken = min(taken, known[1] * self.OUTLIER)
            work = known[0] + self.DECAY * (work - known[0])
            taken = known[1] + self.DECAY * (taken - known[1])
        self._classes[key] = (work, taken)
        self._model = None

    def model(self) -> CostModel | None:
        """The model that fits best in relative error; None before the first measurement."""
        if self._model is None and self._classes:
            self._model = self._fit(list(self._classes.values()))
        return self._model

    @staticmethod
    def _fit(points: list[tuple[float, float]]) -> CostModel:
        weights = [1.0 / taken**2 for _, taken in points]
        total = sum(weights)
        mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
        mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
        spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
        if spread / total <= 1e-6 * mean_x**2:
            return CostModel(0.1 * mean_y, 0.9 * mean_y / mean_x)
        together = sum(
            w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)
        )
        rate = max(together / spread, 0.0)
        overhead = mean_y - rate * mean_x
        if overhead < 0:
            return CostModel(0.0, mean_y / mean_x)
        return CostModel(overhead, rate)
