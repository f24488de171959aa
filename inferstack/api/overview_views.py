"""The JSON of the live overview."""

import msgspec


class Percentiles(msgspec.Struct, frozen=True):
    """Milliseconds below which half, 95 % and 99 % of the latest durations were."""

    p50: float
    p95: float
    p99: float
    count: int
    """How many there were in the last 30 seconds."""


class QueueView(msgspec.Struct, frozen=True):
    """How many tasks are where."""

    high: int
    normal: int
    low: int
    delayed: int
    """They wait for a retry."""
    running: int
    outbox: int
    """Changes that are not in the history yet."""


class Rates(msgspec.Struct, frozen=True):
    """Tasks that ended, per second."""

    completed: float
    failed: float
    expired: float


class ReplicaView(msgspec.Struct, frozen=True):
    """One process that runs a model."""

    worker: str
    host: str
    device: str
    state: str
    capacity: float
    """Tasks per second that it can do; 0 if unknown."""
    running: int
    completed: int
    busy: float | None
    """Share of the last 30 seconds that it computed, 0 to 1."""


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One model version, its queue and its replicas."""

    model: str
    version: int
    state: str
    reason: str | None
    circuit: str
    queue: QueueView
    rates: Rates | None
    """Null while nothing is known."""
    batch_size: float | None
    """Mean of the last 30 seconds."""
    batch_ms: float | None
    """How long a batch took, in milliseconds; mean of the last 30 seconds."""
    replicas: list[ReplicaView]


class DeviceView(msgspec.Struct, frozen=True):
    """One device that replicas run on."""

    host: str
    device: str
    replicas: int
    utilisation: float | None
    """Share of time, 0 to 1; null where this API process cannot see the device."""
    memory_used: int | None
    """Bytes."""


class ComponentView(msgspec.Struct, frozen=True):
    """One service that the API stands on."""

    name: str
    ok: bool
    essential: bool
    detail: str | None
    latency_ms: float | None


class OverviewPoint(msgspec.Struct, frozen=True, kw_only=True):
    """What the charts show of one second."""

    at: float
    """Seconds since the epoch."""
    queue: QueueView
    rates: Rates | None
    latency: Percentiles | None
    """Of requests that waited for their result, from the request until the answer; at this host."""


class OverviewHistory(msgspec.Struct, frozen=True):
    """Event `history`, sent once, first: what was sampled while somebody listened, oldest first."""

    points: list[OverviewPoint]


class OverviewSample(msgspec.Struct, frozen=True, kw_only=True):
    """Event `sample`, sent every second."""

    point: OverviewPoint
    status: str
    """`healthy`, `degraded` or `unhealthy`."""
    uptime: float
    """Seconds since this API process started."""
    host: str
    """Of this API process, whose latencies these are: other hosts have their own."""
    accepted: Percentiles | None
    """Of requests that did not wait, until their task was durable; at this host."""
    components: list[ComponentView]
    deployments: list[DeploymentView]
    devices: list[DeviceView]
