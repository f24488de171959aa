"""A deployment as the rest of the system sees it, without its model's code. Pure."""

from enum import StrEnum
from typing import Any

import msgspec

from inferstack.task import deployment_hint, deployment_name


class DeploymentState(StrEnum):
    """Whether a deployment can answer."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


class Circuit(StrEnum):
    """State of a deployment's circuit breaker; see `breaker.lua`."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    """A few tasks pass; what becomes of them decides."""
    OPEN = "open"
    """New work is refused and what waits is not claimed."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model version being served: what the registry in Redis holds about it."""

    model: str
    version: int
    state: DeploymentState = DeploymentState.STARTING
    reason: str | None = None
    """Why it failed, in one line."""
    engine: str = "python"
    task: str | None = None
    """What the model does, such as `sentence-embedding`."""
    input_schema: dict[str, Any] | None = None
    """JSON Schema of a request's `data`."""
    max_cost: float | None = None
    """The longest text taken, in tokens; None for other inputs."""
    batch_size: int = 32
    compute_timeout: float = 60.0
    """Seconds that one call of predict may take."""
    max_queue: int | None = None
    """Tasks that may wait; the setting MAX_QUEUE if None."""
    fallback: int | None = None
    """Version that takes over while the circuit of this one is open."""
    test_only: bool = False
    """Takes inputs that sleep, fail or crash on purpose; refused in production."""

    @property
    def name(self) -> str:
        """`model:version`, also the name of its queue."""
        return deployment_name(self.model, self.version)

    @property
    def hint(self) -> int:
        """The 12 bits that the ids of its tasks carry."""
        return deployment_hint(self.name)


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a replica says of itself with every heartbeat."""

    worker: str
    """Unique name of the replica's process: `host:pid:random`."""
    device: str = "cpu"
    """`cpu`, or `cuda:<n>` of the GPUs of its machine."""
    state: str = "ready"
    """`ready` or `draining`."""
    capacity: float = 0.0
    """Tasks per second that it can do, measured over its latest batches; 0 if unknown."""
    running: int = 0
    """Tasks in the batch that computes now."""
    batches: int = 0
    tasks: int = 0
    """In those batches."""
    computed: float = 0.0
    """Seconds that those batches took."""
    completed: int = 0
