"""Whether the default model is served, as the registry in Redis tells."""

import asyncio
import contextlib
import time

import msgspec

from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import QueueUnavailableError, StackError
from inferstack.local.child import Child
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry

PATIENCE = 180.0
"""Seconds that the default model may take to load before the stack counts as up without it."""

SETTLING = 2.0
"""Seconds that the other models get to load or fail, once the default model is served."""


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
    """Waits until the default model is served, has failed, or takes too long.

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


async def failures(redis_url: str) -> list[str]:
    """One line for each deployment that failed; waits `SETTLING` for those that still load."""
    redis = connect(redis_url)
    until = time.monotonic() + SETTLING
    try:
        while True:
            found = await _all(Registry(redis))
            loading = any(d.state is DeploymentState.STARTING for d in found)
            if not loading or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
    finally:
        await redis.aclose()
    return [_failure(d) for d in found if d.state is DeploymentState.FAILED]


def _failure(deployment: Deployment) -> str:
    # Some reasons begin with the name already.
    reason = (deployment.reason or "").removeprefix(f"{deployment.name}: ")
    return f"{deployment.name} failed: {reason}"


async def _all(registry: Registry) -> list[Deployment]:
    with contextlib.suppress(QueueUnavailableError):
        return await registry.all()
    return []
