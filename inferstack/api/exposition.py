"""What `/metrics` shows: this process, its peers on the same port, and the queues."""

import threading

from prometheus_client import generate_latest

from inferstack.config import Settings
from inferstack.deployment import DeploymentState
from inferstack.lifecycle.tasks import Tasks
from inferstack.queue.statistics import Circuit, QueueStatistics
from inferstack.telemetry import metrics
from inferstack.telemetry.peers import Peers, folder_for

_PER_DEPLOYMENT = (
    metrics.QUEUE_WAITING,
    metrics.QUEUE_DELAYED,
    metrics.QUEUE_RUNNING,
    metrics.QUEUE_OUTBOX,
    metrics.QUEUE_REPLICAS,
    metrics.QUEUE_CAPACITY,
    metrics.QUEUE_COMPLETED,
    metrics.QUEUE_FAILED,
    metrics.QUEUE_EXPIRED,
    metrics.CIRCUIT,
    metrics.CIRCUIT_OPENED,
    metrics.DEPLOYMENT_READY,
)

_CIRCUITS = {Circuit.CLOSED: 0.0, Circuit.HALF_OPEN: 0.5, Circuit.OPEN: 1.0}


class Exposition:
    """Writes the metrics of all of inferstack's processes on this machine."""

    def __init__(self, tasks: Tasks, settings: Settings) -> None:
        """Args: settings: tell where the other processes are, if there are any."""
        self._tasks = tasks
        self._scraping = threading.Lock()
        folder = folder_for(settings.inferstack_home)
        self._peers = Peers(folder, "api", self._own, ("replica", "worker"))

    async def start(self) -> None:
        """Answers the other processes from now on."""
        await self._peers.start()

    async def stop(self) -> None:
        """Answers them no more."""
        await self._peers.stop()

    async def text(self) -> bytes:
        """Every metric in Prometheus' text format, by process."""
        return await self._peers.gather()

    def _own(self) -> bytes:
        with self._scraping:
            for gauge in _PER_DEPLOYMENT:
                gauge.clear()
            statistics = self._tasks.statistics()
            for deployment in self._tasks.deployments():
                labels = (deployment.model, str(deployment.version))
                ready = deployment.state is DeploymentState.READY
                metrics.DEPLOYMENT_READY.labels(*labels).set(ready)
                if deployment.name in statistics:
                    _copy(labels, statistics[deployment.name])
            return generate_latest()


def _copy(labels: tuple[str, str], queue: QueueStatistics) -> None:
    for priority, waiting in queue.waiting.items():
        metrics.QUEUE_WAITING.labels(*labels, priority).set(waiting)
    metrics.QUEUE_DELAYED.labels(*labels).set(queue.delayed)
    metrics.QUEUE_RUNNING.labels(*labels).set(queue.running)
    metrics.QUEUE_OUTBOX.labels(*labels).set(queue.outbox)
    metrics.QUEUE_REPLICAS.labels(*labels).set(len(queue.replicas))
    metrics.QUEUE_CAPACITY.labels(*labels).set(queue.capacity)
    metrics.QUEUE_COMPLETED.labels(*labels).set(queue.completed)
    metrics.QUEUE_FAILED.labels(*labels).set(queue.failed)
    metrics.QUEUE_EXPIRED.labels(*labels).set(queue.expired)
    metrics.CIRCUIT.labels(*labels).set(_CIRCUITS[queue.circuit])
    metrics.CIRCUIT_OPENED.labels(*labels).set(queue.opened)
