"""How many replicas a queue wants. Pure; Ray Serve calls it with what the replicas report."""

import math
from typing import Any, Protocol

from inferstack.worker.placement import Placement

WINDOWS = "windows"
"""Name of the metric: claims' worth of tasks that wait in the queue."""
BUSY = "busy"
"""Name of the metric: share of the time in which the replica computed, 0 to 1."""
LOOK_BACK = 10.0
"""Seconds over which Serve averages what replicas report."""
TARGET_BUSY = 0.8
"""Share of the time that replicas should compute."""


class Context(Protocol):
    """The part of Ray Serve's `AutoscalingContext` that is used here."""

    current_num_replicas: int
    aggregated_metrics: dict[str, dict[Any, float]] | None


def wanted(current: int, windows: float, busy: float) -> int:
    """Replicas that would keep up.

    One more for each full window that waits; fewer only when nothing waits and the rest would
    still compute for less than `TARGET_BUSY` of the time.

    Args:
        current: replicas now.
        windows: windows of tasks that wait.
        busy: share of the time in which the replicas computed, on average.
    """
    needed = math.ceil(current * busy / TARGET_BUSY)
    if windows >= 1:
        return max(current, needed) + math.floor(windows)
    return max(1, min(current, needed))


class QueuePolicy:
    """The autoscaling policy of every deployment with a range of replicas."""

    def __call__(self, ctx: Context) -> tuple[int, dict[str, Any]]:
        """The wanted number of replicas; bounds and delays are applied by Serve."""
        metrics = ctx.aggregated_metrics or {}
        windows, busy = metrics.get(WINDOWS, {}), metrics.get(BUSY, {})
        if not windows or not busy:
            return ctx.current_num_replicas, {}
        # Every replica reports the same queue; the latest report is the largest lie at worst.
        share = sum(busy.values()) / len(busy)
        return wanted(ctx.current_num_replicas, max(windows.values()), share), {}


def options(placement: Placement) -> dict[str, Any]:
    """The arguments of `serve.deployment` for a number or a range of replicas."""
    if placement.minimum == placement.maximum:
        return {"num_replicas": placement.minimum}
    policy = {"policy_function": f"{__name__}:{QueuePolicy.__name__}"}
    return {
        "autoscaling_config": {
            "min_replicas": placement.minimum,
            "max_replicas": placement.maximum,
            "upscale_delay_s": 3.0,
            "downscale_delay_s": 60.0,
            "look_back_period_s": LOOK_BACK,
            "policy": policy,
        }
    }
