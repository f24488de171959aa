"""Whether the models are served, as the registry in Redis tells."""

import asyncio
import contextlib
import time

import msgspec

from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import InferstackError, StackError
from inferstack.local.child import Child
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.worker.registrar import PATIENCE


async def forget_readiness(redis_url: str) -> None:
    """Marks every deployment as starting: no replica of the last run lives any more.

    Only for a Redis that belongs to this stack alone.
    """
    redis = connect(redis_url)
    try:
        registry = Registry(redis)
        for deployment in await registry.all():
            fresh = msgspec.structs.replace(deployment, state=DeploymentState.STARTING, reason=None)
            await registry.put(fresh)
    finally:
        await redis.aclose()


async def wait(redis_url: str, model: str, worker: Child) -> str:
    """Waits until the default model is served, has failed, or others wait no longer for it.

    Args:
        redis_url: the Redis with the registry.
        model: the default model.
        worker: the process that loads it.

    Returns:
        What to tell the user.

    Raises:
        StackError: the worker ended before that.
    """
    redis = connect(redis_url)
    until = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < until:
            found = [d for d in await _all(Registry(redis)) if d.model == model]
            if any(d.state is DeploymentState.READY for d in found):
                return f"{model} is served"
            if found and all(d.state is DeploymentState.FAILED for d in found):
                return f"{model} failed to load"
            if worker.state.note is not None:
                raise StackError(f"worker {worker.state.note}")
            await asyncio.sleep(0.1)
    finally:
        await redis.aclose()
    return f"{model} is not served after {PATIENCE:.0f} s: see {worker.log}"


async def others(redis_url: str) -> tuple[list[str], list[str]]:
    """The deployments that still load, and one line for each that failed."""
    redis = connect(redis_url)
    try:
        found = await _all(Registry(redis))
    finally:
        await redis.aclose()
    loading = [d.name for d in found if d.state is DeploymentState.STARTING]
    return loading, [_failure(d) for d in found if d.state is DeploymentState.FAILED]


def _failure(deployment: Deployment) -> str:
    # Some reasons begin with the name already.
    reason = (deployment.reason or "").removeprefix(f"{deployment.name}: ")
    return f"{deployment.name} failed: {reason}"


async def _all(registry: Registry) -> list[Deployment]:
    # One that runs elsewhere may be away, or its password be changed: the others tell of it.
    with contextlib.suppress(InferstackError):
        return await registry.all()
    return []
