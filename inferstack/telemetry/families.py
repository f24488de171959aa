"""Kinds of metrics that prometheus-client does not have, or has at a higher price."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Labels = tuple[object, ...]
"""Values of labels; turned into text when somebody scrapes."""


class Times(Collector):
    """A histogram that one thread fills, and a counter of the same things if it has a name.

    Noting one costs a quarter of prometheus-client's histogram: it takes no lock, and the
    buckets add up at the scrape. The counter is free, since it is the histogram's count.
    """

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        buckets: Sequence[float],
        *,
        counter: tuple[str, str] | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Declares it.

        Args:
            name: of the histogram.
            text: what it says.
            labels: their names.
            buckets: upper bounds in ascending order, without the infinite one.
            counter: name, without `_total`, and text of a counter of the same.
            registry: where it is shown.
        """
        self._name, self._text, self._labels = name, text, labels
        self._bounds = tuple(buckets)
        self._bucket_names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        self._counter = counter
        self._rows: dict[Labels, list[float]] = {}
        registry.register(self)

    def observe(self, labels: Labels, seconds: float) -> None:
        """Notes one; always from the same thread."""
        row = self._rows.get(labels)
        if row is None:
            # A count for each bucket, then the sum.
            row = self._rows[labels] = [0.0] * (len(self._bounds) + 2)
        row[bisect_left(self._bounds, seconds)] += 1
        row[-1] += seconds

    def describe(self) -> Iterator[Metric]:
        """The names, without a sample."""
        yield from self._families()

    def collect(self) -> Iterator[Metric]:
        """What was noted so far; from any thread."""
        histogram, *counters = self._families()
        for labels, live in self._rows.copy().items():
            *counts, total = live[:]
            names = [str(value) for value in labels]
            below = list(accumulate(counts))
            buckets = list(zip(self._bucket_names, below, strict=True))
            histogram.add_metric(names, buckets, total)
            for counter in counters:
                counter.add_metric(names, below[-1])
        yield from (histogram, *counters)

    def _families(self) -> tuple[HistogramMetricFamily, *tuple[CounterMetricFamily, ...]]:
        histogram = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        if self._counter is None:
            return (histogram,)
        return histogram, CounterMetricFamily(*self._counter, labels=self._labels)


class Copied(Collector):
    """Values that are counted elsewhere, such as in Redis, and replaced all at once here."""

    def __init__(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        text: str,
        labels: Sequence[str],
        *,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """Declares it.

        Args:
            kind: what it is.
            name: of a counter without `_total`.
            text: what it says.
            labels: their names.
            registry: where it is shown.
        """
        self._kind, self._name, self._text, self._labels = kind, name, text, labels
        self._samples: list[tuple[Sequence[str], float]] = []
        registry.register(self)

    def show(self, samples: Iterable[tuple[Sequence[str], float]]) -> None:
        """Replaces every sample; one that is not named any more is gone.

        Args:
            samples: values of the labels, and the value.
        """
        self._samples = list(samples)

    def describe(self) -> Iterator[Metric]:
        """The name, without a sample."""
        yield self._kind(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """What was shown last; from any thread."""
        family = self._kind(self._name, self._text, labels=self._labels)
        for labels, value in self._samples:
            family.add_metric(list(labels), value)
        yield family
