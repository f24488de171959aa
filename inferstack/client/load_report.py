"""What a run of the load generator came to."""

from collections.abc import Sequence

import msgspec

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


class LoadReport(msgspec.Struct, frozen=True):
    """What came back."""

    sent: int
    completed: int
    """Answers of any status, the warm-up left out."""
    duration: float
    """Seconds that `rate` is about."""
    rate: float
    """Answers per second while requests were being sent."""
    statuses: dict[int, int]
    errors: dict[str, int]
    """Requests without an answer: `timeout`, `connection-lost`, `protocol-error`."""
    latency_ms: dict[str, float]
    """`p50` to `p999`, `mean` and `max`; requests that timed out count with their age."""
    bytes_received: int

    @property
    def failed(self) -> int:
        """Requests without an answer or with a status of 400 or more."""
        bad = sum(count for status, count in self.statuses.items() if status >= 400)
        return bad + sum(self.errors.values())


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Latencies in milliseconds by name; all 0 if there are none."""
    ordered = sorted(seconds)
    if not ordered:
        return dict.fromkeys([*PERCENTILES, "mean", "max"], 0.0)
    last = len(ordered) - 1
    found = {name: ordered[min(last, int(q * len(ordered)))] for name, q in PERCENTILES.items()}
    found["mean"], found["max"] = sum(ordered) / len(ordered), ordered[-1]
    return {name: round(value * 1000, 3) for name, value in found.items()}
