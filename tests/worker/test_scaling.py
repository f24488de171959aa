"""When Ray Serve is asked for more or fewer replicas."""

from dataclasses import dataclass
from typing import Any

import pytest

from inferstack.worker.scaling import BUSY, WINDOWS, QueuePolicy, wanted


@pytest.mark.parametrize(
    ("current", "windows", "busy", "expected"),
    [
        (1, 0.0, 0.0, 1),
        (4, 0.0, 0.1, 1),
        (4, 0.0, 0.5, 3),
        (4, 0.5, 1.0, 4),
        (1, 1.0, 1.0, 3),
        (2, 10.0, 0.9, 13),
        (3, 1.0, 0.0, 4),
    ],
)
def test_replicas_follow_what_waits_and_shrink_when_idle(
    current: int, windows: float, busy: float, expected: int
) -> None:
    assert wanted(current, windows, busy) == expected


@dataclass
class Context:
    current_num_replicas: int
    aggregated_metrics: dict[str, dict[Any, float]] | None


def test_the_policy_reads_what_replicas_report() -> None:
    metrics = {WINDOWS: {"a": 2.0, "b": 2.2}, BUSY: {"a": 1.0, "b": 0.6}}
    assert QueuePolicy()(Context(2, metrics)) == (4, {})


@pytest.mark.parametrize("metrics", [None, {}, {WINDOWS: {}}])
def test_without_reports_nothing_changes(metrics: Any) -> None:
    assert QueuePolicy()(Context(3, metrics)) == (3, {})
