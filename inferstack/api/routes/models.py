"""Which models there are and how they fare."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from inferstack.api.routes.dependencies import CallerOf, ServicesOf
from inferstack.deployment import Circuit, Deployment, ReplicaStatus
from inferstack.queue.statistics import QueueStatistics

router = APIRouter(tags=["models"])


class Replica(BaseModel):
    """One process that runs the model."""

    worker: str
    device: str
    state: str
    capacity: float
    """Tasks per second, as measured; 0 if unknown."""
    running: int
    batches: int
    completed: int


class Model(BaseModel):
    """One version of a model."""

    model: str
    version: int
    default: bool
    """Whether requests that name no model are for this model."""
    state: str
    """`starting`, `ready` or `failed`."""
    reason: str | None
    """Why it failed."""
    circuit: str
    """`closed`; `open` while it keeps failing and takes no work; `half-open` while it is tried."""
    engine: str
    task: str | None
    input_schema: dict[str, Any] | None
    """JSON Schema of `data`."""
    batch_size: int
    waiting: dict[str, int]
    """Tasks by priority."""
    running: int
    replicas: list[Replica]


class Models(BaseModel):
    """Every model version that is known."""

    models: list[Model]


@router.get("/api/models")
async def models(services: ServicesOf, _: CallerOf) -> Models:
    """Every deployment with its state, its queue and its replicas."""
    statistics = services.tasks.statistics()
    deployments = sorted(services.tasks.deployments(), key=lambda d: (d.model, d.version))
    default = services.settings.default_model
    return Models(models=[_model(d, statistics.get(d.name), default) for d in deployments])


def _model(deployment: Deployment, queue: QueueStatistics | None, default: str) -> Model:
    return Model(
        model=deployment.model,
        version=deployment.version,
        default=deployment.model == default,
        state=deployment.state,
        reason=deployment.reason,
        circuit=queue.circuit if queue else Circuit.CLOSED,
        engine=deployment.engine,
        task=deployment.task,
        input_schema=deployment.input_schema,
        batch_size=deployment.batch_size,
        waiting=queue.waiting if queue else {},
        running=queue.running if queue else 0,
        replicas=[_replica(status) for status in queue.replicas] if queue else [],
    )


def _replica(status: ReplicaStatus) -> Replica:
    return Replica(
        worker=status.worker,
        device=status.device,
        state=status.state,
        capacity=round(status.capacity, 3),
        running=status.running,
        batches=status.batches,
        completed=status.completed,
    )
