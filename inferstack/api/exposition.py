"""What `/metrics` shows: this process, the others of this machine, and the queues."""

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import generate_latest

from inferstack.api.health import Finding
from inferstack.config import Settings
from inferstack.deployment import Circuit, Deployment, DeploymentState
from inferstack.lifecycle.tasks import Tasks
from inferstack.queue.statistics import QueueStatistics
from inferstack.telemetry import metrics
from inferstack.telemetry.exposure import Exposure
from inferstack.telemetry.families import Copied

_CIRCUITS = {Circuit.CLOSED: 0.0, Circuit.HALF_OPEN: 0.5, Circuit.OPEN: 1.0}

_OF_A_QUEUE: dict[Copied, Callable[[QueueStatistics], float]] = {
    metrics.QUEUE_DELAYED: lambda queue: queue.delayed,
    metrics.QUEUE_RUNNING: lambda queue: queue.running,
    metrics.QUEUE_OUTBOX: lambda queue: queue.outbox,
    metrics.QUEUE_REPLICAS: lambda queue: len(queue.replicas),
    metrics.QUEUE_CAPACITY: lambda queue: queue.capacity,
    metrics.QUEUE_COMPLETED: lambda queue: queue.completed,
    metrics.QUEUE_FAILED: lambda queue: queue.failed,
    metrics.QUEUE_EXPIRED: lambda queue: queue.expired,
    metrics.CIRCUIT: lambda queue: _CIRCUITS[queue.circuit],
    metrics.CIRCUIT_OPENED: lambda queue: queue.opened,
}


class Exposition:
    """Writes the metrics of all of inferstack's processes on this machine."""

    def __init__(
        self, tasks: Tasks, findings: Callable[[], Sequence[Finding]], settings: Settings
    ) -> None:
        """Shows nothing yet.

        Args:
            tasks: tell of deployments and queues.
            findings: the latest check of each service that the API stands on.
            settings: tell where the other processes are, if there are any.
        """
        self._tasks = tasks
        self._findings = findings
        self._exposure = Exposure("api", self._own, settings)

    async def start(self) -> None:
        """Answers the other processes from now on."""
        await self._exposure.start()

    async def stop(self) -> None:
        """Answers them no more."""
        await self._exposure.stop()

    async def text(self) -> bytes:
        """Every metric in Prometheus' text format, by process."""
        return await self._exposure.machine()

    def _own(self) -> bytes:
        _show_queues(self._tasks.deployments(), self._tasks.statistics())
        findings = self._findings()
        metrics.COMPONENT_UP.show(((found.name,), float(found.ok)) for found in findings)
        metrics.COMPONENT_SECONDS.show(
            ((found.name,), found.latency) for found in findings if found.latency is not None
        )
        return generate_latest(metrics.API)


def _show_queues(deployments: Iterable[Deployment], queues: dict[str, QueueStatistics]) -> None:
    named = {each.name: (each.model, str(each.version)) for each in deployments}
    metrics.DEPLOYMENT_READY.show(
        (named[each.name], float(each.state is DeploymentState.READY)) for each in deployments
    )
    known = [(labels, queues[name]) for name, labels in named.items() if name in queues]
    for family, value in _OF_A_QUEUE.items():
        family.show((labels, value(queue)) for labels, queue in known)
    metrics.QUEUE_DEPTH.show(
        ((*labels, priority), waiting)
        for labels, queue in known
        for priority, waiting in queue.waiting.items()
    )
