"""How many replicas a queue wants. Pure; Ray Serve calls it with what the replicas report."""

import math
from typing import Any, Protocol

from inferstack.engines.model_config import ReplicaRange, Replicas
from inferstack.worker.placement import Placement

WINDOWS = "windows"
"""Name of the metric: claims' worth of tasks that wait in the queue, or `UNKNOWN`."""
UNKNOWN = -1.0
"""More replicas would not help, or nobody knows: Redis does not answer, or the circuit is open."""
BUSY = "busy"
"""Name of the metric: share of the time in which the replica computed, 0 to 1."""
LOOK_BACK = 12.0
"""Seconds over which Serve averages what replicas report; it wants more than 10."""
TARGET_BUSY = 0.8
"""Share of the time that replicas should compute."""


class Context(Protocol):
    """The part of Ray Serve's `AutoscalingContext` that is used here."""

    current_num_replicas: int
    """Those that run; others may be loading still."""
    target_num_replicas: int
    """What was wanted last, which Serve compares the answer with."""
    aggregated_metrics: dict[str, dict[Any, float]] | None


def wanted(running: int, target: int, windows: float, busy: float) -> int:
    """Replicas that would keep up.

    One more than run for each full window that waits, and no fewer than were wanted already: some
    of those may be loading. Fewer only when nothing waits and the rest would still compute for
    less than `TARGET_BUSY` of the time.

    Args:
        running: replicas that work.
        target: replicas that were wanted last.
        windows: windows of tasks that wait.
        busy: share of the time in which the running replicas computed, on average.
    """
    needed = math.ceil(running * busy / TARGET_BUSY)
    if windows >= 1:
        return max(target, max(running, needed) + math.floor(windows))
    return max(1, min(target, needed))


class QueuePolicy:
    """The autoscaling policy of every deployment with a range of replicas."""

    def __call__(self, ctx: Context) -> tuple[int, dict[str, Any]]:
        """The wanted number of replicas; bounds and delays are applied by Serve."""
        metrics = ctx.aggregated_metrics or {}
        windows, busy = metrics.get(WINDOWS, {}), metrics.get(BUSY, {})
        if not windows or not busy or max(windows.values()) < 0:
            # None runs: all have died, or load still. Or what waits says nothing.
            return ctx.target_num_replicas, {}
        # Every replica reports the same queue; the latest report is the largest lie at worst.
        share = sum(busy.values()) / len(busy)
        running, target = ctx.current_num_replicas, ctx.target_num_replicas
        return wanted(running, target, max(windows.values()), share), {}


def options(placement: Placement, wish: Replicas) -> dict[str, Any]:
    """The arguments of `serve.deployment` for the replicas that a model's config wishes for."""
    if placement.minimum == placement.maximum or not isinstance(wish, ReplicaRange):
        return {"num_replicas": placement.minimum}
    policy = {"policy_function": f"{__name__}:{QueuePolicy.__name__}"}
    return {
        "autoscaling_config": {
            "min_replicas": placement.minimum,
            "max_replicas": placement.maximum,
            "upscale_delay_s": 3.0,
            "downscale_delay_s": wish.downscale_delay,
            "look_back_period_s": LOOK_BACK,
            "policy": policy,
        }
    }
