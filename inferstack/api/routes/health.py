"""Whether this process lives, can take work, and what it stands on. `/metrics` is here too."""

import time
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from inferstack.api.routes.dependencies import CallerOf, ServicesOf
from inferstack.deployment import Circuit

router = APIRouter(tags=["health"])

OPEN: dict[str, Any] = {"security": []}


class Health(BaseModel):
    """The short answer."""

    status: str
    """`healthy`, `degraded` or `unhealthy`; of readiness also `leaving`: the process ends soon."""
    uptime: float
    """Seconds since this process started."""


class Component(BaseModel):
    """One service that the API stands on."""

    name: str
    ok: bool
    essential: bool
    """Whether no task can be accepted without it."""
    detail: str | None
    latency_ms: float | None


class DeploymentHealth(BaseModel):
    """One deployment and its queue."""

    name: str
    state: str
    reason: str | None
    circuit: str
    """`closed`; `open` while it keeps failing and takes no work; `half-open` while it is tried."""
    replicas: int
    waiting: int
    running: int
    outbox: int


class DetailedHealth(Health):
    """The long answer."""

    components: list[Component]
    deployments: list[DeploymentHealth]


@router.get("/health", openapi_extra=OPEN, responses={503: {"model": Health}})
async def health(services: ServicesOf, response: Response) -> Health:
    """Whether tasks can be accepted; 503 if not."""
    status = services.monitor.status()
    response.status_code = 503 if status == "unhealthy" else 200
    return Health(status=status, uptime=_uptime(services))


@router.get("/health/live", openapi_extra=OPEN)
async def live(services: ServicesOf) -> Health:
    """Whether the process answers; restart it if it does not."""
    return Health(status="healthy", uptime=_uptime(services))


@router.get("/health/ready", openapi_extra=OPEN, responses={503: {"model": Health}})
async def ready(services: ServicesOf, response: Response) -> Health:
    """Whether to send traffic here; 503 if not."""
    answer = await health(services, response)
    if services.monitor.leaving:
        response.status_code, answer.status = 503, "leaving"
    return answer


@router.get("/health/detailed")
async def detailed(services: ServicesOf, _: CallerOf) -> DetailedHealth:
    """Every component and every deployment."""
    components = [
        Component(
            name=finding.name,
            ok=finding.ok,
            essential=finding.essential,
            detail=finding.detail,
            latency_ms=finding.latency_ms,
        )
        for finding in services.monitor.findings()
    ]
    return DetailedHealth(
        status=services.monitor.status(),
        uptime=_uptime(services),
        components=components,
        deployments=_deployments(services),
    )


@router.get("/metrics", openapi_extra=OPEN, response_class=Response)
async def metrics(services: ServicesOf) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(await services.exposition.text(), media_type=CONTENT_TYPE_LATEST)


def _uptime(services: ServicesOf) -> float:
    return round(time.time() - services.monitor.started_at, 3)


def _deployments(services: ServicesOf) -> list[DeploymentHealth]:
    found = services.tasks.statistics()
    rows = []
    for deployment in services.tasks.deployments():
        queue = found.get(deployment.name)
        rows.append(
            DeploymentHealth(
                name=deployment.name,
                state=deployment.state,
                reason=deployment.reason,
                circuit=queue.circuit if queue else Circuit.CLOSED,
                replicas=len(queue.replicas) if queue else 0,
                waiting=queue.depth if queue else 0,
                running=queue.running if queue else 0,
                outbox=queue.outbox if queue else 0,
            )
        )
    return rows
