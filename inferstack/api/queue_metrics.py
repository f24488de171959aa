"""Copies the sampled state of the queues into metrics when somebody scrapes."""

import threading

from prometheus_client import generate_latest

from inferstack.deployment import DeploymentState
from inferstack.lifecycle.tasks import Tasks
from inferstack.queue.statistics import QueueStatistics
from inferstack.telemetry import metrics

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
    metrics.DEPLOYMENT_READY,
)
_scraping = threading.Lock()


def exposition(tasks: Tasks) -> bytes:
    """Every metric of this process in Prometheus' text format."""
    with _scraping:
        for gauge in _PER_DEPLOYMENT:
            gauge.clear()
        statistics = tasks.statistics()
        for deployment in tasks.deployments():
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
