"""Makes one sample of the overview out of what is known."""

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import psutil

from inferstack.api.computed import Computed
from inferstack.api.health import Finding
from inferstack.api.latest import Latest
from inferstack.api.overview_views import (
    ComponentView,
    DeploymentView,
    DeviceView,
    QueueView,
    Rates,
    ReplicaView,
)
from inferstack.deployment import Circuit, Deployment, ReplicaStatus
from inferstack.queue.statistics import QueueStatistics
from inferstack.task import Priority

Statistics = Mapping[str, QueueStatistics]

STALE = 3.0
"""Seconds after which the latest rates say nothing of now: Redis does not answer."""

HOST = socket.gethostname()


class _Seen(NamedTuple):
    """What was known of a queue, since when, and how fast it went then."""

    statistics: QueueStatistics
    when: float
    rates: Rates | None


class Rated:
    """How fast tasks end, by deployment: exact, since statistics carry the time of Redis."""

    def __init__(self) -> None:
        """Knows nothing before the second look."""
        self._seen: dict[str, _Seen] = {}

    def add(self, statistics: Statistics) -> None:
        """Takes the latest statistics; the same ones again change nothing."""
        now = time.monotonic()
        for name, current in statistics.items():
            seen = self._seen.get(name)
            if seen is None or current.at != seen.statistics.at:
                rates = _rates(seen.statistics, current) if seen else None
                self._seen[name] = _Seen(current, now, rates)
        self._seen = {name: seen for name, seen in self._seen.items() if name in statistics}

    def of(self, name: str) -> Rates | None:
        """The rates of a deployment; None while they are not known."""
        seen = self._seen.get(name)
        return seen.rates if seen and time.monotonic() - seen.when < STALE else None

    def total(self) -> Rates | None:
        """Those of all deployments together."""
        known = [rates for name in self._seen if (rates := self.of(name)) is not None]
        if not known:
            return None
        return Rates(
            round(sum(rates.completed for rates in known), 2),
            round(sum(rates.failed for rates in known), 2),
            round(sum(rates.expired for rates in known), 2),
        )


def _rates(before: QueueStatistics, now: QueueStatistics) -> Rates | None:
    seconds = now.at - before.at
    if seconds <= 0:
        return None

    def rate(first: int, last: int) -> float:
        return round(max(0, last - first) / seconds, 2)

    return Rates(
        rate(before.completed, now.completed),
        rate(before.failed, now.failed),
        rate(before.expired, now.expired),
    )


def queue_of(queue: QueueStatistics | None) -> QueueView:
    """One queue; an empty one if nothing is known of it."""
    if queue is None:
        return QueueView(0, 0, 0, 0, 0, 0)
    high, normal, low = (queue.waiting.get(priority, 0) for priority in Priority)
    return QueueView(high, normal, low, queue.delayed, queue.running, queue.outbox)


def total_queue(statistics: Statistics) -> QueueView:
    """All queues together."""
    views = [queue_of(queue) for queue in statistics.values()]
    names = QueueView.__struct_fields__
    return QueueView(*(sum(getattr(view, name) for view in views) for name in names))


def components(findings: Iterable[Finding]) -> list[ComponentView]:
    """What the health checks found last."""
    return [
        ComponentView(
            name=finding.name,
            ok=finding.ok,
            essential=finding.essential,
            detail=finding.detail,
            latency_ms=finding.latency_ms,
        )
        for finding in findings
    ]


def deployments(
    known: Sequence[Deployment], statistics: Statistics, rated: Rated, computed: Computed
) -> list[DeploymentView]:
    """Every deployment, by name and version."""
    return [
        DeploymentView(
            model=deployment.model,
            version=deployment.version,
            state=deployment.state,
            reason=deployment.reason,
            circuit=queue.circuit if queue else Circuit.CLOSED,
            queue=queue_of(queue),
            rates=rated.of(deployment.name),
            batch_size=work.batch_size,
            batch_ms=work.batch_ms,
            replicas=[_replica(status, computed) for status in replicas],
        )
        for deployment in sorted(known, key=lambda d: (d.model, d.version))
        for queue in (statistics.get(deployment.name),)
        for replicas in (queue.replicas if queue else [],)
        for work in (computed.of(status.worker for status in replicas),)
    ]


def _replica(status: ReplicaStatus, computed: Computed) -> ReplicaView:
    return ReplicaView(
        worker=status.worker,
        host=_host(status),
        device=status.device,
        state=status.state,
        capacity=round(status.capacity, 2),
        running=status.running,
        completed=status.completed,
        busy=computed.busy(status.worker),
    )


def _host(status: ReplicaStatus) -> str:
    return status.worker.partition(":")[0]


def devices(statistics: Statistics, latest: Latest) -> list[DeviceView]:
    """Every device that a replica runs on, and the GPUs of this machine that none does."""
    replicas = [status for queue in statistics.values() for status in queue.replicas]
    counts: dict[tuple[str, str], int] = {(HOST, gpu): 0 for gpu in latest.utilisation}
    for status in replicas:
        key = (_host(status), status.device)
        counts[key] = counts.get(key, 0) + 1
    return [
        _device(host, device, count, latest) for (host, device), count in sorted(counts.items())
    ]


def _device(host: str, device: str, replicas: int, latest: Latest) -> DeviceView:
    if host != HOST:
        return DeviceView(host, device, replicas, None, None)
    if device == "cpu":
        used = psutil.virtual_memory().used
        return DeviceView(host, device, replicas, round(psutil.cpu_percent() / 100, 3), used)
    utilisation, memory = latest.utilisation.get(device), latest.memory.get(device)
    return DeviceView(host, device, replicas, utilisation, None if memory is None else int(memory))
