"""What this process knows of the deployments, refreshed once a second."""

import asyncio
import logging

from inferstack import routing
from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.deployment import Circuit, Deployment, DeploymentState
from inferstack.engines.admission import Admission
from inferstack.engines.repository import ModelEntry, scan
from inferstack.errors import (
    InferstackError,
    ModelFolderError,
    QueueUnavailableError,
)
from inferstack.queue.committer import GroupCommitter
from inferstack.queue.connection import Redis
from inferstack.queue.registry import Registry
from inferstack.queue.statistics import QueueStatistics, sample
from inferstack.queue.task_queue import TaskQueue
from inferstack.task import deployment_name, task_id_hint

log = logging.getLogger(__name__)

REFRESH = 1.0
"""Seconds between two looks at the registry and the queues."""


class Target:
    """One deployment and this process's way into its queue."""

    def __init__(
        self, deployment: Deployment, queue: TaskQueue, api: str, admission: Admission
    ) -> None:
        """Args: api: the completion channel of this process."""
        self.deployment = deployment
        self.queue = queue
        self.committer = GroupCommitter(queue, api, deployment.max_queue)
        self.admission = admission
        self.statistics: QueueStatistics | None = None
        self.probe = False
        """Whether the next request is to try it, though another deployment could take over."""

    def sampled(self, statistics: QueueStatistics) -> None:
        """Takes in how its queue is now.

        Where the circuit is half-open and nothing is under way that could close it, one request
        of this process shall: with more, the queue would have to turn some away.
        """
        self.statistics = statistics
        idle = not (statistics.depth or statistics.running)
        self.probe = statistics.circuit is Circuit.HALF_OPEN and idle

    @property
    def circuit(self) -> Circuit:
        """State of its circuit breaker, as of the last refresh."""
        return self.statistics.circuit if self.statistics else Circuit.CLOSED

    @property
    def serves(self) -> bool:
        """Whether it is ready and does not keep failing."""
        ready = self.deployment.state is DeploymentState.READY
        return ready and self.circuit is Circuit.CLOSED

    def wait_for(self, ahead: int) -> float:
        """Seconds until a task with `ahead` others before it starts, as far as is known.

        While no replica has measured its capacity yet, a batch is taken to last a second.
        """
        capacity = self.statistics.capacity if self.statistics else 0.0
        return ahead / (capacity or self.deployment.batch_size)

    def retry_after(self) -> float:
        """Seconds after which a tenth of what waits now is done: when to come back."""
        depth = self.statistics.depth if self.statistics else 0
        return min(60.0, max(1.0, self.wait_for(depth) / 10))


class Directory:
    """Every deployment by name, with its queue and its latest statistics."""

    def __init__(self, redis: "Redis", api: str, settings: Settings) -> None:
        """Knows nothing before the first `refresh`."""
        self._redis = redis
        self._registry = Registry(redis)
        self._api = api
        self._settings = settings
        self._targets: dict[str, Target] = {}
        self._resolved: dict[tuple[str | None, int | None], Target] = {}
        """What `resolve` found since the last refresh; holds no name that is not served."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks once, then keeps looking; waits for Redis as long as that takes.

        Raises:
            ConfigurationError: Redis refuses the credentials.
        """
        waiting = False
        while True:
            try:
                await self.refresh()
                break
            except QueueUnavailableError as error:
                if not waiting:
                    log.warning("cannot read the deployments yet: %s", error)
                waiting = True
                await asyncio.sleep(REFRESH)
        self._task = asyncio.create_task(self._refresh_forever())

    async def stop(self) -> None:
        """Stops looking; commits what is still on its way in."""
        await end(self._task)
        await asyncio.gather(*(target.committer.drain() for target in self._targets.values()))

    def resolve(self, model: str | None, version: int | None) -> Target:
        """The target for a request; errors as in `routing.resolve`."""
        found = self._resolved.get((model, version))
        if found is None:
            deployments = [target.deployment for target in self._targets.values()]
            chosen = routing.resolve(deployments, model or self._settings.default_model, version)
            found = self._resolved[model, version] = self._targets[chosen.name]
        return found if version or found.circuit is Circuit.CLOSED else self._around(found)

    def _around(self, target: Target) -> Target:
        """The fallback of a deployment that keeps failing, if it has one that serves.

        Once probes may pass, one request a second goes the usual way, or it would never close.
        """
        if target.probe:
            target.probe = False
            return target
        return self.fallback(target) or target

    def fallback(self, target: Target) -> Target | None:
        """The deployment that takes over for another, if it serves."""
        deployment = target.deployment
        other = self.named(deployment_name(deployment.model, deployment.fallback or 0))
        return other if other is not None and other.serves else None

    def named(self, name: str) -> Target | None:
        """The target of a deployment, None if it is unknown."""
        return self._targets.get(name)

    def former(self, name: str) -> Target:
        """A way to the tasks of a deployment that is not registered any more."""
        model, _, version = name.rpartition(":")
        gone = Deployment(model=model, version=int(version), state=DeploymentState.FAILED)
        queue = TaskQueue(self._redis, name, self._settings)
        return Target(gone, queue, self._api, Admission(gone, None))

    def candidates(self, task_id: str) -> list[Target]:
        """The few deployments that a task id may belong to."""
        hint = task_id_hint(task_id)
        return [t for t in self._targets.values() if t.deployment.hint == hint]

    def targets(self) -> list[Target]:
        """Every deployment, by name."""
        return list(self._targets.values())

    async def refresh(self) -> None:
        """Reads the registry and the statistics of all queues."""
        deployments = await self._registry.all()
        if any(self._changed(d) for d in deployments):
            await self._admit(deployments)
        self._targets = {d.name: self._targets[d.name] for d in deployments}
        self._resolved.clear()
        for name, statistics in (await sample(self._redis, list(self._targets))).items():
            self._targets[name].sampled(statistics)

    def _changed(self, deployment: Deployment) -> bool:
        known = self._targets.get(deployment.name)
        return known is None or known.deployment != deployment

    async def _admit(self, deployments: list[Deployment]) -> None:
        entries = await asyncio.to_thread(self._entries)
        for deployment in filter(self._changed, deployments):
            queue = TaskQueue(self._redis, deployment.name, self._settings)
            entry = entries.get(deployment.name)
            admission = await asyncio.to_thread(_admission, deployment, entry)
            target = Target(deployment, queue, self._api, admission)
            known = self._targets.get(deployment.name)
            self._targets[deployment.name] = target
            self._resolved.clear()
            if known is not None:
                target.statistics = known.statistics
                if known.deployment.max_queue == deployment.max_queue:
                    target.committer = known.committer
                else:
                    await known.committer.drain()

    def _entries(self) -> dict[str, ModelEntry]:
        """The model folders that this process can see: none where only replicas have them."""
        try:
            found = scan(self._settings.model_path, self._settings)
        except (ModelFolderError, OSError) as error:
            log.info("inputs are checked by schema only: %s", error)
            return {}
        return {f"{entry.model}:{entry.version}": entry for entry in found}

    async def _refresh_forever(self) -> None:
        while True:
            await asyncio.sleep(REFRESH)
            try:
                await self.refresh()
            except InferstackError as error:
                log.warning("cannot refresh deployments: %s", error)
            except Exception:
                log.exception("cannot refresh deployments")


def _admission(deployment: Deployment, entry: ModelEntry | None) -> Admission:
    """What a deployment takes; by its schema alone if its folder is broken."""
    try:
        return Admission(deployment, entry)
    except ModelFolderError as error:
        log.warning("inputs of %s are checked by schema only: %s", deployment.name, error)
    except Exception:
        log.exception("inputs of %s are checked by schema only", deployment.name)
    return Admission(deployment, None)
