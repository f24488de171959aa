"""Keeps the registry true: which deployments there are, and whether they can answer."""

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.engines.repository import ModelEntry
from inferstack.errors import InferstackError
from inferstack.queue.registry import Registry

log = logging.getLogger(__name__)

PERIOD = 1.0
"""Seconds between two looks."""
EAGER_PERIOD = 0.2
"""The same while a deployment is starting."""


class Registrar:
    """Starting until a replica lives, then ready; failed when a replica said why it cannot load."""

    def __init__(
        self, registry: Registry, entries: Sequence[ModelEntry], settings: Settings
    ) -> None:
        """Args: entries: every folder of the repository, broken ones too."""
        self._registry = registry
        self._deployments = [entry.deployment(settings) for entry in entries]
        self._started = False

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

        The first time it forgets failures of an earlier run, and deployments whose folder is
        gone unless a replica, perhaps on another machine, still serves them.
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
            await self._forget(known.keys() - {d.name for d in self._deployments})
        self._started = True
        return starting

    async def _state(self, deployment: Deployment, known: Deployment | None) -> Deployment:
        if deployment.state is DeploymentState.FAILED:
            return deployment
        if await self._live(deployment.name):
            return msgspec.structs.replace(deployment, state=DeploymentState.READY)
        if self._started and known is not None and known.state is DeploymentState.FAILED:
            return msgspec.structs.replace(
                deployment, state=DeploymentState.FAILED, reason=known.reason
            )
        return deployment

    async def _live(self, name: str) -> bool:
        return any(replica.state == "ready" for replica in await self._registry.replicas(name))

    async def _forget(self, names: set[str]) -> None:
        for name in names:
            if not await self._live(name):
                await self._registry.remove(name)
