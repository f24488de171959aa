"""The metrics of this machine's replicas and devices, for whoever scrapes."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

from inferstack.config import Settings
from inferstack.deployment import Deployment
from inferstack.telemetry import metrics
from inferstack.telemetry.peers import Peers, folder_for
from inferstack.worker import gpu

log = logging.getLogger(__name__)

OF_REPLICAS = (
    metrics.BATCH_SECONDS,
    metrics.BATCH_TASKS,
    metrics.BATCH_ITEMS_FAILED,
    metrics.CLAIM_SECONDS,
    metrics.COMPLETIONS_STALE,
    metrics.TASKS_DROPPED,
)
OF_DEVICES = (metrics.DEVICE_UTILISATION, metrics.DEVICE_MEMORY_BYTES)


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
        self._stale_before = 0

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

    def stale(self, total: int) -> None:
        """Takes over the number of results refused since the replica started."""
        self._stale.inc(total - self._stale_before)
        self._stale_before = total


def of_replica() -> bytes:
    """The metrics of a replica's process."""
    return generate_latest(_REPLICA)


def of_devices() -> bytes:
    """The metrics of this machine's GPUs, as they are now; for one process a machine."""
    for found in gpu.gpus():
        device = f"cuda:{found.number}"
        metrics.DEVICE_UTILISATION.labels(device).set(found.utilisation)
        metrics.DEVICE_MEMORY_BYTES.labels(device).set(found.memory_used)
    return generate_latest(_DEVICES)


@asynccontextmanager
async def shown(
    service: str, exposition: Callable[[], bytes], settings: Settings
) -> AsyncIterator[None]:
    """Lets the API processes of this machine ask for these metrics.

    Args:
        service: `replica`, or `worker` for the process that keeps them running.
        exposition: what they get.
        settings: the home tells where they ask.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            peers = Peers(folder_for(settings.inferstack_home), service, exposition)
            await peers.start()
            stack.push_async_callback(peers.stop)
        except OSError as error:
            # No reason not to serve.
            log.warning("nobody can ask for the metrics of this process: %s", error)
        yield


def _registry(families: Sequence[Collector]) -> CollectorRegistry:
    registry = CollectorRegistry()
    for family in families:
        registry.register(family)
    ProcessCollector(registry=registry)
    return registry


_REPLICA = _registry(OF_REPLICAS)
_DEVICES = _registry(OF_DEVICES)
