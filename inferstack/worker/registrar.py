"""Keeps the registry true: which deployments there are, and whether they can answer."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence

import msgspec

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.engines.model_config import ReplicaRange
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
PATIENCE = 180.0
"""Seconds that other models wait for the default one."""
MOST_EARLY_DEATHS = 3
"""Times that a replica may end before it is ready until its deployment counts as failed."""
NOTICE = 5.0
"""Seconds that a deployment is shown as failed before it is removed.

API processes look once a second, and what they have taken by then must be in the queue.
"""
GONE = "its folder is gone"
"""Why a deployment has failed that is not in the repository any more."""


class Registrar:
    """Starting until a replica lives, then ready; failed when a replica said why it cannot load."""

    def __init__(
        self,
        redis: "Redis",
        entries: Sequence[ModelEntry],
        settings: Settings,
        *,
        tells_losses: bool = False,
    ) -> None:
        """Knows nothing before the first `refresh`.

        Args:
            redis: a client from `connection.connect`.
            entries: every folder of the repository, broken ones too.
            settings: the default model has a say in what starts when.
            tells_losses: whether to log replicas that are gone, where nobody else does.
        """
        self._redis = redis
        self._registry = Registry(redis)
        self._deployments = [entry.deployment(settings) for entry in entries]
        self._fewest = {
            deployment.name: entry.config.replicas.min
            for entry, deployment in zip(entries, self._deployments, strict=True)
            if entry.config is not None and isinstance(entry.config.replicas, ReplicaRange)
        }
        """Replicas that are left of a deployment whose number follows its queue, at least."""
        self._reasons: dict[str, str] = {}
        """Why a deployment has failed that could not say so itself."""
        self._default = settings.default_model
        self._default_settled = asyncio.Event()
        self.starting = {d.name for d in self._deployments}
        """Deployments that were starting at the last look."""
        self._started = False
        self._workers: dict[str, set[str]] | None = {} if tells_losses else None
        """The replicas of each deployment at the last look."""
        self._put: dict[str, Deployment] = {}
        """What was put last."""
        self._gone: dict[str, float] = {}
        """Deployments of an earlier run whose folder is gone, and when that was noticed."""

    async def run(self) -> None:
        """Looks again and again, whatever goes wrong: else no deployment would become ready."""
        while True:
            period = PERIOD
            try:
                await self.refresh()
                period = EAGER_PERIOD if self.starting else PERIOD
            except InferstackError as error:
                log.warning("cannot refresh the registry: %s", error)
            except Exception:
                log.exception("cannot refresh the registry")
            await asyncio.sleep(period)

    async def default_settled(self) -> None:
        """Returns once no version of the default model is starting, or after PATIENCE seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._default_settled.wait(), PATIENCE)

    def failed(self, name: str, reason: str) -> None:
        """Takes in that the replicas of a deployment end before they are ready, or have no room.

        What they say themselves counts more, and so does a replica that lives.
        """
        self._reasons[name] = reason

    async def refresh(self) -> None:
        """Puts what has changed.

        The first time it forgets failures of an earlier run, and finds deployments whose folder
        is gone. Those that nobody serves, on another machine perhaps, are failed, and removed once
        API processes know that, no task is unfinished and history has all: nothing is stranded.
        """
        known = {deployment.name: deployment for deployment in await self._registry.all()}
        starting = []
        for deployment in self._deployments:
            current = await self._state(deployment, known.get(deployment.name))
            if current.state is DeploymentState.STARTING:
                starting.append(current)
            if self._news(current, known.get(deployment.name)):
                await self._registry.put(current)
                self._put[deployment.name] = current
                why = f": {current.reason}" if current.reason else ""
                log.info("%s is %s%s", current.name, current.state, why)
        if not self._started:
            gone = known.keys() - {d.name for d in self._deployments}
            self._gone = dict.fromkeys(gone, time.monotonic())
        for name in list(self._gone):
            await self._forget(name, known.get(name))
        self._started = True
        self.starting = {deployment.name for deployment in starting}
        if not any(deployment.model == self._default for deployment in starting):
            self._default_settled.set()

    def _news(self, current: Deployment, known: Deployment | None) -> bool:
        """Whether to put it: what another machine says of the same state stands once it is put.

        Its settings may differ for a while. Both would put theirs at every look.
        """
        if known is None or (known.state, known.reason) != (current.state, current.reason):
            return True
        return current not in (known, self._put.get(current.name))

    async def _state(self, deployment: Deployment, known: Deployment | None) -> Deployment:
        if deployment.state is DeploymentState.FAILED:
            # Its folder is broken here, and perhaps only here.
            if known is None or known.state is not DeploymentState.READY:
                return deployment
            return known if await self._live(deployment.name) else deployment
        if await self._live(deployment.name):
            self._reasons.pop(deployment.name, None)
            return msgspec.structs.replace(deployment, state=DeploymentState.READY)
        reason = self._reasons.get(deployment.name)
        if self._started and known is not None and _failed(known):
            reason = known.reason
        if reason is None:
            return deployment
        return msgspec.structs.replace(deployment, state=DeploymentState.FAILED, reason=reason)

    async def _live(self, name: str) -> bool:
        replicas = await self._registry.replicas(name)
        if self._workers is not None:
            workers = {replica.worker for replica in replicas}
            # Those that the queue needs no more leave as well.
            usual = len(workers) >= self._fewest.get(name, math.inf)
            level = logging.INFO if usual else logging.WARNING
            for worker in self._workers.get(name, set()) - workers:
                log.log(level, "replica %s of %s is gone, %d left", worker, name, len(workers))
            self._workers[name] = workers
        return any(replica.state == "ready" for replica in replicas)

    async def _forget(self, name: str, known: Deployment | None) -> None:
        """Says that a deployment's folder is gone; removes it once none of its tasks is left."""
        taken_over = self._started and known is not None and known.reason != GONE
        if known is None or taken_over or await self._live(name):
            del self._gone[name]
            return
        queue = (await sample(self._redis, [name]))[name]
        waits = queue.depth or queue.delayed or queue.running
        failed = msgspec.structs.replace(known, state=DeploymentState.FAILED, reason=GONE)
        if failed != known:
            await self._registry.put(failed)
            if waits:
                log.warning("%s: %s, and tasks wait for it", name, GONE)
        elif not (waits or queue.outbox) and time.monotonic() - self._gone[name] >= NOTICE:
            await self._registry.remove(name)
            del self._gone[name]
            log.info("%s is removed: %s", name, GONE)


def _failed(known: Deployment) -> bool:
    """Whether a replica could not load it; that another machine lacks its folder says nothing."""
    return known.state is DeploymentState.FAILED and known.reason != GONE
