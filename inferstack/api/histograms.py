"""Percentiles out of Prometheus' text format, over the last few scrapes."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping

from inferstack.api.overview_views import Percentiles

Labels = dict[str, str]
Buckets = dict[float, float]
"""Upper bound in the family's unit -> observations up to it."""

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(text: str, name: str) -> Iterator[tuple[Labels, float]]:
    """The samples of one name.

    Args:
        text: an exposition.
        name: of the samples: a histogram's has `_bucket`, `_sum` or `_count` at its end.
    """
    start = f"{name}{{"
    for line in text.splitlines():
        if line.startswith(start):
            labels, _, value = line[len(start) :].rpartition("} ")
            yield dict(_LABEL.findall(labels)), float(value)


class Series:
    """One histogram in several processes: how much it grew over the latest scrapes.

    One thread may add while another takes the total.
    """

    def __init__(self, scrapes: int, *, seen: bool) -> None:
        """Starts empty.

        Args:
            scrapes: how many of the latest ones count.
            seen: whether there was a scrape before, so that all of the next one is new. If not,
                the next one only says where counting starts.
        """
        self._last: dict[tuple[str, float], float] | None = {} if seen else None
        self._scrapes = scrapes
        self._growth: tuple[Buckets, ...] = ()
        """Replaced and never changed, for who goes through it meanwhile."""

    def add(self, values: Mapping[tuple[str, float], float]) -> None:
        """Takes the values of a scrape, by process and bound.

        One that fell belongs to a process that has started since. One that is missing is kept in
        mind: its process may have been too busy to answer.
        """
        last, self._last = self._last, {**(self._last or {}), **values}
        if last is None:
            return
        grown: Buckets = {}
        for key, value in values.items():
            before = last.get(key, 0.0)
            delta = value - before if value >= before else value
            grown[key[1]] = grown.get(key[1], 0.0) + delta
        self._growth = (*self._growth, grown)[-self._scrapes :]

    def total(self) -> Buckets:
        """The growth of the latest scrapes together."""
        summed: Buckets = {}
        for bound, value in itertools.chain.from_iterable(g.items() for g in self._growth):
            summed[bound] = summed.get(bound, 0.0) + value
        return summed


def percentiles(buckets: Buckets) -> Percentiles | None:
    """Percentiles in milliseconds of a histogram in seconds; None if it is empty."""
    count = buckets.get(math.inf, 0.0)
    if count <= 0:
        return None
    p50, p95, p99 = (round(quantile(buckets, q) * 1000, 3) for q in (0.5, 0.95, 0.99))
    return Percentiles(p50, p95, p99, round(count))


def quantile(buckets: Buckets, q: float) -> float:
    """As PromQL's `histogram_quantile`: linear inside a bucket, at most the last finite bound."""
    bounds = sorted(buckets)
    rank = q * buckets[bounds[-1]]
    lower, below = 0.0, 0.0
    for bound in bounds:
        reached = buckets[bound]
        if reached >= rank:
            if math.isinf(bound):
                return lower
            share = (rank - below) / (reached - below) if reached > below else 1.0
            return lower + (bound - lower) * share
        lower, below = bound, reached
    return lower
