"""Keeps the registry true: which deployments there are, and whether they can answer."""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.engines.repository import ModelEntry
from inferstack.errors import InferstackError
from inferstack.queue.connection import Redis
from inferstack.queue.registry import Registry
from inferstack.queue.statistics import sample

log = logging.getLogger(__name__)

PERIOD = 1.0
"""Seconds between two looks."""
EAGER_PERIOD = 0.2
"""The same while a deployment is starting."""
GONE = "its folder is gone"
"""Why a deployment has failed that is not in the repository any more."""


class Registrar:
    """Starting until a replica lives, then ready; failed when a replica said why it cannot load."""

    def __init__(self, redis: "Redis", entries: Sequence[ModelEntry], settings: Settings) -> None:
        """Args: entries: every folder of the repository, broken ones too."""
        self._redis = redis
        self._registry = Registry(redis)
        self._deployments = [entry.deployment(settings) for entry in entries]
        self._started = False
        self._gone: set[str] = set()
        """Deployments of an earlier run whose folder is gone."""

    async def run(self) -> None:
        """Looks again and again."""
        while True:
            try:
                busy = await self.refresh()
            except InferstackError as error:
                log.warning("cannot refresh the registry: %s", error)
                busy = False
            await asyncio.sleep(EAGER_PERIOD if busy else PERIOD)

    async def refresh(self) -> bool:
        """Puts what has changed; returns whether a deployment is still starting.

        The first time it forgets failures of an earlier run, and finds deployments whose folder
        is gone. Those that nobody serves, on another machine perhaps, are removed once their
        queue holds no unfinished task; until then they are failed, so that nothing is stranded.
        """
        known = {deployment.name: deployment for deployment in await self._registry.all()}
        starting = False
        for deployment in self._deployments:
            current = await self._state(deployment, known.get(deployment.name))
            starting = starting or current.state is DeploymentState.STARTING
            if current != known.get(deployment.name):
                await self._registry.put(current)
                log.info("%s is %s %s", current.name, current.state, current.reason or "")
        if not self._started:
            self._gone = known.keys() - {d.name for d in self._deployments}
        for name in list(self._gone):
            await self._forget(name, known.get(name))
        self._started = True
        return starting

    async def _state(self, deployment: Deployment, known: Deployment | None) -> Deployment:
        if deployment.state is DeploymentState.FAILED:
            return deployment
        if await self._live(deployment.name):
            return msgspec.structs.replace(deployment, state=DeploymentState.READY)
        if self._started and known is not None and _failed(known):
            return msgspec.structs.replace(
                deployment, state=DeploymentState.FAILED, reason=known.reason
            )
        return deployment

    async def _live(self, name: str) -> bool:
        return any(replica.state == "ready" for replica in await self._registry.replicas(name))

    async def _forget(self, name: str, known: Deployment | None) -> None:
        """Removes a deployment, or says that its folder is gone while tasks are left."""
        taken_over = self._started and known is not None and known.reason != GONE
        if known is None or taken_over or await self._live(name):
            self._gone.remove(name)
            return
        queue = (await sample(self._redis, [name]))[name]
        if queue.depth or queue.delayed or queue.running:
            failed = msgspec.structs.replace(known, state=DeploymentState.FAILED, reason=GONE)
            if failed != known:
                await self._registry.put(failed)
                log.warning("%s: %s, and tasks wait for it", name, GONE)
        else:
            await self._registry.remove(name)
            self._gone.remove(name)
            log.info("%s is removed: %s", name, GONE)


def _failed(known: Deployment) -> bool:
    """Whether a replica could not load it; that another machine lacks its folder says nothing."""
    return known.state is DeploymentState.FAILED and known.reason != GONE
