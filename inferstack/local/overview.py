"""How a running stack is, at one moment."""

import asyncio

import msgspec

from inferstack.errors import InferstackError
from inferstack.local.processes import alive
from inferstack.local.stack import api_ready
from inferstack.local.state import ChildPhase, ChildState, StackState


class ProcessReport(msgspec.Struct, frozen=True):
    """One process of the stack."""

    name: str
    phase: str
    """A `ChildPhase`, or `dead` for one that its supervisor has not noticed yet."""
    pid: int | None
    port: int | None
    restarts: int


class DeploymentReport(msgspec.Struct, frozen=True):
    """One deployment and its queue."""

    name: str
    state: str
    reason: str | None
    circuit: str
    """A `Circuit`: `closed` unless the deployment keeps failing."""
    replicas: int
    waiting: int
    running: int
    outbox: int
    """Changes that are not in PostgreSQL yet."""


class Report(msgspec.Struct, frozen=True):
    """What `inferstack status` tells."""

    url: str
    phase: str
    health: str
    healthy: bool
    """Every process runs and the API takes requests."""
    processes: list[ProcessReport]
    deployments: list[DeploymentReport]


def collect(state: StackState) -> Report:
    """Asks the processes, the API and Redis how they are."""
    return asyncio.run(_collect(state))


async def _collect(state: StackState) -> Report:
    ready = await api_ready(state.url)
    processes = [_process(child) for child in state.children]
    return Report(
        url=state.url,
        phase=state.phase,
        health="takes requests" if ready else "takes no requests",
        healthy=ready and all(p.phase == ChildPhase.RUNNING for p in processes),
        processes=processes,
        deployments=await _deployments(state.redis_url),
    )


def _process(child: ChildState) -> ProcessReport:
    gone = child.process is not None and not alive(child.process)
    return ProcessReport(
        name=child.name,
        phase="dead" if gone else child.phase,
        pid=child.process.pid if child.process else None,
        port=child.port,
        restarts=child.restarts,
    )


async def _deployments(redis_url: str) -> list[DeploymentReport]:
    """Every deployment; empty while Redis does not answer, which `processes` shows."""
    # Imported by `status` alone: other commands answer sooner without a client of Redis.
    from inferstack.queue.connection import connect
    from inferstack.queue.registry import Registry
    from inferstack.queue.statistics import sample

    if not redis_url:
        return []
    redis = connect(redis_url)
    try:
        known = await Registry(redis).all()
        queues = await sample(redis, [deployment.name for deployment in known])
    except InferstackError:
        return []
    finally:
        await redis.aclose()
    return [
        DeploymentReport(
            name=deployment.name,
            state=deployment.state,
            reason=deployment.reason,
            circuit=queues[deployment.name].circuit,
            replicas=len(queues[deployment.name].replicas),
            waiting=queues[deployment.name].depth,
            running=queues[deployment.name].running,
            outbox=queues[deployment.name].outbox,
        )
        for deployment in known
    ]
