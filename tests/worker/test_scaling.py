"""When Ray Serve is asked for more or fewer replicas."""

from types import SimpleNamespace
from typing import Any

import pytest

from inferstack.engines.model_config import ModelConfig
from inferstack.worker.placement import Placement
from inferstack.worker.scaling import BUSY, UNKNOWN, WINDOWS, QueuePolicy, options, wanted


@pytest.mark.parametrize(
    ("running", "target", "windows", "busy", "expected"),
    [
        (1, 1, 0.0, 0.0, 1),
        (4, 4, 0.0, 0.1, 1),
        (4, 4, 0.0, 0.5, 3),
        (4, 4, 0.5, 1.0, 4),
        (1, 1, 1.0, 1.0, 3),
        (2, 2, 10.0, 0.9, 13),
        (3, 3, 1.0, 0.0, 4),
    ],
)
def test_replicas_follow_what_waits_and_shrink_when_idle(
    running: int, target: int, windows: float, busy: float, expected: int
) -> None:
    assert wanted(running, target, windows, busy) == expected


@pytest.mark.parametrize(
    ("running", "target", "windows", "busy", "expected"),
    [(1, 6, 2.0, 1.0, 6), (1, 6, 9.0, 1.0, 11), (1, 6, 0.0, 1.0, 2), (1, 6, 0.0, 0.0, 1)],
)
def test_replicas_that_still_load_are_stopped_only_when_nothing_waits(
    running: int, target: int, windows: float, busy: float, expected: int
) -> None:
    assert wanted(running, target, windows, busy) == expected


def context(running: int, target: int, metrics: Any) -> Any:
    return SimpleNamespace(
        current_num_replicas=running, target_num_replicas=target, aggregated_metrics=metrics
    )


def test_the_policy_reads_what_replicas_report() -> None:
    metrics = {WINDOWS: {"a": 2.0, "b": 2.2}, BUSY: {"a": 1.0, "b": 0.6}}
    assert QueuePolicy()(context(2, 2, metrics)) == (4, {})


@pytest.mark.parametrize("metrics", [None, {}, {WINDOWS: {}}])
def test_without_reports_nothing_changes(metrics: Any) -> None:
    assert QueuePolicy()(context(0, 3, metrics)) == (3, {})


@pytest.mark.parametrize("busy", [0.0, 1.0])
def test_what_replicas_do_not_know_changes_nothing(busy: float) -> None:
    metrics = {WINDOWS: {"a": UNKNOWN, "b": UNKNOWN}, BUSY: {"a": busy, "b": busy}}
    assert QueuePolicy()(context(2, 3, metrics)) == (3, {})


@pytest.mark.parametrize("written", [{}, {"downscale_delay": 5}])
def test_serve_is_told_the_range_of_a_model(written: dict[str, float]) -> None:
    config = ModelConfig.model_validate(
        {"engine": "python", "replicas": {"min": 1, "max": 3, **written}}
    )
    told = options(Placement(1, 3, 0.0, "cpu"), config.replicas)["autoscaling_config"]
    assert (told["min_replicas"], told["max_replicas"]) == (1, 3)
    assert told["downscale_delay_s"] == written.get("downscale_delay", 60)
    # There is room for one of them only.
    assert options(Placement(1, 1, 1.0, "cuda:0"), config.replicas) == {"num_replicas": 1}
