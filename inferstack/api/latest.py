"""What the metrics of this machine's processes tell of the last half minute."""

import math
from collections import defaultdict

from prometheus_client import Histogram

from inferstack.api.histograms import Labels, Series, percentiles, samples
from inferstack.api.hot import COLLECTION
from inferstack.api.overview_views import Percentiles
from inferstack.telemetry import metrics
from inferstack.telemetry.families import Copied, Times

Group = tuple[str, str]
"""What a number is about, and of which deployment or status."""
Values = dict[tuple[str, float], float]


class Latest:
    """Takes one exposition after the other."""

    def __init__(self, scrapes: int) -> None:
        """Args: scrapes: how many of the latest ones count."""
        self._scrapes = scrapes
        self._series: dict[Group, Series] = {}
        self._seen = False
        self.utilisation: dict[str, float] = {}
        """Device of this machine -> share of time, 0 to 1; so the next, in bytes."""
        self.memory: dict[str, float] = {}

    def add(self, exposition: bytes) -> None:
        """Takes an exposition; a few milliseconds, and safe to run in a thread."""
        text = exposition.decode()
        found = _values(text)
        for group in found.keys() | self._series.keys():
            series = self._series.get(group)
            if series is None:
                series = self._series[group] = Series(self._scrapes, seen=self._seen)
            series.add(found.get(group, {}))
        self._seen = True
        percents = _devices(text, _name(metrics.GPU_UTILIZATION))
        self.utilisation = {device: percent / 100 for device, percent in percents.items()}
        self.memory = _devices(text, _name(metrics.GPU_MEMORY_USED))

    def answers(self, status: int) -> Percentiles | None:
        """How long submits took that were answered with this status."""
        return self._percentiles(("answers", str(status)))

    def compute(self, deployment: str) -> Percentiles | None:
        """How long batches of a deployment took."""
        return self._percentiles(("compute", deployment))

    def batch_size(self, deployment: str) -> float | None:
        """Tasks in a batch, on average."""
        series = self._series.get(("tasks", deployment))
        total = series.total() if series else {}
        batches = total.get(math.inf, 0.0)
        return round(total[0.0] / batches, 2) if batches else None

    def _percentiles(self, group: Group) -> Percentiles | None:
        series = self._series.get(group)
        return percentiles(series.total()) if series else None


def _values(text: str) -> dict[Group, Values]:
    found: dict[Group, Values] = defaultdict(dict)
    for labels, value in samples(text, f"{_name(metrics.HTTP)}_bucket"):
        if (labels["route"], labels["method"]) == (COLLECTION, "POST"):
            found["answers", labels["status"]][_key(labels)] = value
    for labels, value in samples(text, f"{_name(metrics.BATCH_SECONDS)}_bucket"):
        found["compute", _deployment(labels)][_key(labels)] = value
    name = _name(metrics.BATCH_TASKS)
    for end, bound in (("sum", 0.0), ("count", math.inf)):
        for labels, value in samples(text, f"{name}_{end}"):
            found["tasks", _deployment(labels)][labels["process"], bound] = value
    return found


def _devices(text: str, name: str) -> dict[str, float]:
    return {f"cuda:{labels['gpu']}": value for labels, value in samples(text, name)}


def _key(labels: Labels) -> tuple[str, float]:
    return labels["process"], float(labels["le"])


def _deployment(labels: Labels) -> str:
    return f"{labels['model']}:{labels['version']}"


def _name(family: Histogram | Times | Copied) -> str:
    return next(iter(family.describe())).name
