"""What the metrics of this machine's processes tell of the last half minute."""

from collections import defaultdict

from prometheus_client import Histogram

from inferstack.api.histograms import Labels, Series, percentiles, samples
from inferstack.api.hot import COLLECTION
from inferstack.api.overview_views import Percentiles
from inferstack.telemetry import metrics
from inferstack.telemetry.families import Copied, Times

Values = dict[tuple[str, float], float]


class Latest:
    """Takes one exposition after the other."""

    def __init__(self, scrapes: int) -> None:
        """Args: scrapes: how many of the latest ones count."""
        self._scrapes = scrapes
        self._series: dict[str, Series] = {}
        """By the status of the answers."""
        self._seen = False
        self.utilisation: dict[str, float] = {}
        """Device of this machine -> share of time, 0 to 1; so the next, in bytes."""
        self.memory: dict[str, float] = {}

    def add(self, exposition: bytes) -> None:
        """Takes an exposition; a few milliseconds, and safe to run in a thread."""
        text = exposition.decode()
        found = _values(text)
        for status in found.keys() | self._series.keys():
            series = self._series.get(status)
            if series is None:
                series = self._series[status] = Series(self._scrapes, seen=self._seen)
            series.add(found.get(status, {}))
        self._seen = True
        percents = _devices(text, _name(metrics.GPU_UTILIZATION))
        self.utilisation = {device: percent / 100 for device, percent in percents.items()}
        self.memory = _devices(text, _name(metrics.GPU_MEMORY_USED))

    def answers(self, status: int) -> Percentiles | None:
        """How long submits took that were answered with this status."""
        series = self._series.get(str(status))
        return percentiles(series.total()) if series else None


def _values(text: str) -> dict[str, Values]:
    found: dict[str, Values] = defaultdict(dict)
    for labels, value in samples(text, f"{_name(metrics.HTTP)}_bucket"):
        if (labels["route"], labels["method"]) == (COLLECTION, "POST"):
            found[labels["status"]][_key(labels)] = value
    return found


def _devices(text: str, name: str) -> dict[str, float]:
    return {f"cuda:{labels['gpu']}": value for labels, value in samples(text, name)}


def _key(labels: Labels) -> tuple[str, float]:
    return labels["process"], float(labels["le"])


def _name(family: Histogram | Times | Copied) -> str:
    return next(iter(family.describe())).name
