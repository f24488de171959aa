"""What a run of the load generator came to."""

from array import array
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from inferstack.client.http1 import Frame

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}


class LoadReport(msgspec.Struct, frozen=True):
    """What came back."""

    sent: int
    completed: int
    """Answers of any status, the warm-up left out."""
    duration: float
    """Seconds that `rate` is about."""
    rate: float
    """Good answers per second while requests were being sent."""
    statuses: dict[int, int]
    errors: dict[str, int]
    """Requests without an answer that counts: `timeout`, `connection-lost`, `protocol-error`,
    `unreachable`, `not-completed`."""
    latency_ms: dict[str, float]
    """`p50` to `p999`, `mean`, `min` and `max`; requests that timed out count with their age,
    refusals do not count."""
    bytes_received: int
    refusals: dict[int, int] = {}
    """Part of `statuses`: 429 and 503 that say when to come back, by `Retry-After`."""
    unsent: int = 0
    """Requests that were given up because no connection was free for them in time."""

    @property
    def failed(self) -> int:
        """Requests without an answer that counts or with a status other than 2xx."""
        bad = sum(count for status, count in self.statuses.items() if not good(status))
        return bad + sum(self.errors.values()) + self.unsent


class Answer(NamedTuple):
    """A good answer, for whoever wants more than its status."""

    number: int
    """Of its request, from 0."""
    status: int
    body: bytes
    """As it came."""


def good(status: int) -> bool:
    """Whether a status says that the server did what it was asked."""
    return 200 <= status < 300


class Tally:
    """Counts what becomes of the requests that are due in one span of time."""

    __slots__ = (
        "bytes_received",
        "errors",
        "good",
        "latencies",
        "refusals",
        "sent",
        "statuses",
        "unsent",
    )

    def __init__(self) -> None:
        """Nothing has come back."""
        self.latencies = array("d")
        self.statuses: Counter[int] = Counter()
        self.refusals: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.sent = self.unsent = self.bytes_received = 0
        self.good = 0
        """Good answers that arrived within the span, whenever they were due."""

    def answered(self, seconds: float, answer: Frame) -> None:
        """Counts an answer that came `seconds` after its request was due."""
        self.statuses[answer.status] += 1
        if answer.retry_after:
            self.refusals[answer.status] += 1
        else:
            self.latencies.append(seconds)

    def failed(self, reason: str, seconds: float | None = None) -> None:
        """Counts a request without an answer that counts; with its age if that is a latency."""
        self.errors[reason] += 1
        if seconds is not None:
            self.latencies.append(seconds)

    def report(self, seconds: float) -> LoadReport:
        """What it came to in a span of `seconds`."""
        return LoadReport(
            sent=self.sent,
            completed=sum(self.statuses.values()),
            duration=round(seconds, 3),
            rate=self.good / seconds if seconds > 0 else 0.0,
            statuses=dict(self.statuses),
            errors=dict(self.errors),
            latency_ms=percentiles(self.latencies),
            bytes_received=self.bytes_received,
            refusals=dict(self.refusals),
            unsent=self.unsent,
        )


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Latencies in milliseconds by name; all 0 if there are none."""
    ordered = sorted(seconds)
    if not ordered:
        return dict.fromkeys([*PERCENTILES, "mean", "min", "max"], 0.0)
    last = len(ordered) - 1
    found = {name: ordered[min(last, int(q * len(ordered)))] for name, q in PERCENTILES.items()}
    found |= {"mean": sum(ordered) / len(ordered), "min": ordered[0], "max": ordered[-1]}
    return {name: round(value * 1000, 3) for name, value in found.items()}
