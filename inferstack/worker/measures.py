"""The metrics of this machine's replicas and devices, for whoever scrapes."""

from collections import Counter
from collections.abc import Container
from typing import Any

import prometheus_client
from prometheus_client import generate_latest

from inferstack.batching import Batch
from inferstack.deployment import Deployment
from inferstack.telemetry import metrics
from inferstack.worker import gpu

DEVICE_TELLS = {
    metrics.GPU_MEMORY_USED: "memory_used",
    metrics.GPU_MEMORY_TOTAL: "memory_total",
    metrics.GPU_TEMPERATURE: "temperature",
    metrics.GPU_POWER: "power",
}
"""What not every device says of itself, and the field of `GpuUsage` that it is in."""


class Measures:
    """What one replica counts: once a batch, never once a task."""

    def __init__(self, deployment: Deployment) -> None:
        """Args: deployment: gives every sample its labels."""
        labels = (deployment.model, str(deployment.version))
        self._batch_seconds = metrics.BATCH_SECONDS.labels(*labels)
        self._batch_tasks = metrics.BATCH_TASKS.labels(*labels)
        self._items_failed = metrics.BATCH_ITEMS_FAILED.labels(*labels)
        self._claim_seconds = metrics.CLAIM_SECONDS.labels(*labels)
        self._stale = metrics.COMPLETIONS_STALE.labels(*labels)
        self._dropped = metrics.TASKS_DROPPED.labels(*labels)
        self._cost = metrics.BATCH_COST.labels(*labels)
        self._padded_cost = metrics.BATCH_PADDED_COST.labels(*labels)
        self._retries = {
            reason: metrics.TASK_RETRIES.labels(*labels, reason) for reason in ("error", "lease")
        }
        self._seen: Counter[str] = Counter()

    def planned(self, batch: Batch[Any]) -> None:
        """Counts what a batch costs, and what it costs padded to its largest input."""
        self._cost.inc(sum(item.cost for item in batch.items))
        self._padded_cost.inc(len(batch.items) * batch.longest)

    def batch(self, tasks: int, seconds: float, failed: int) -> None:
        """Counts a batch that has computed, with its tasks that failed."""
        self._batch_tasks.observe(tasks)
        self._batch_seconds.observe(seconds)
        if failed:
            self._items_failed.inc(failed)

    def claim(self, seconds: float) -> None:
        """Counts a claim that got tasks."""
        self._claim_seconds.observe(seconds)

    def dropped(self) -> None:
        """Counts a task that was cancelled or expired while the replica held it."""
        self._dropped.inc()

    def session(self, stale: int, retried: int, reaped: int) -> None:
        """Takes over what the session has counted since the replica started.

        Args:
            stale: results refused.
            retried: failed attempts that get another.
            reaped: tasks taken back from replicas that fell silent, this one's too.
        """
        self._take("stale", stale, self._stale)
        self._take("error", retried, self._retries["error"])
        self._take("lease", reaped, self._retries["lease"])

    def _take(self, name: str, total: int, counter: prometheus_client.Counter) -> None:
        if more := total - self._seen[name]:
            counter.inc(more)
            self._seen[name] = total


def of_replica() -> bytes:
    """The metrics of a replica's process."""
    return generate_latest(metrics.REPLICA)


def of_devices(only: Container[str] | None = None) -> bytes:
    """The metrics of this machine's GPUs, as they are now; each GPU is for one process to show.

    Args:
        only: the GPUs to show, as `gpu.visible` has them; all if None.
    """
    gpus = [each for each in gpu.gpus() if only is None or str(each.number) in only]
    found = [((str(each.number), each.name), each) for each in gpus]
    metrics.GPU_UTILIZATION.show((labels, each.utilisation * 100) for labels, each in found)
    for family, field in DEVICE_TELLS.items():
        told = [(labels, getattr(each, field)) for labels, each in found]
        family.show((labels, value) for labels, value in told if value is not None)
    return generate_latest(metrics.WORKER)
