"""Which deployments there are: their outboxes, and their rows in PostgreSQL."""

import asyncio
from collections.abc import Callable, Sequence

from inferstack.deployment import Deployment
from inferstack.queue.outbox import Outbox, OutboxEntry
from inferstack.queue.registry import Registry
from inferstack.storage.models import Models
from inferstack.task import Task


class Deployments:
    """Every deployment that may have changes waiting.

    That is what the registry names now, and what PostgreSQL knows from before: a deployment
    that is gone may have left changes in its outbox.
    """

    def __init__(self, registry: Registry, models: Models) -> None:
        """Knows nothing before the first `refresh`."""
        self._registry = registry
        self._models = models
        self._stored: dict[str, Deployment] | None = None
        self.names: frozenset[str] = frozenset()
        """The name of each, `model:version`."""
        self.registered: frozenset[str] = frozenset()
        """Those of them that the registry names now."""

    async def refresh(self) -> None:
        """Looks at the registry and stores what changed in it.

        Raises:
            QueueUnavailableError: nothing is new.
            StorageUnavailableError: the names are up to date, the rows not; try again.
        """
        current = await self._registry.all()
        self.registered = frozenset(deployment.name for deployment in current)
        self.names |= self.registered
        if self._stored is None:
            self._stored = {known.name: known for known in await self._models.all()}
            self.names |= self._stored.keys()
        await self._models.upsert([d for d in current if self._stored.get(d.name) != d])
        self._stored |= {d.name: d for d in current}


class Outboxes:
    """The outboxes of whatever deployments there are at the moment."""

    def __init__(self, deployments: Deployments, make: Callable[[Sequence[str]], Outbox]) -> None:
        """Args: make: an Outbox for some deployment names."""
        self._deployments = deployments
        self._make = make
        self._names: frozenset[str] = frozenset()
        self._outbox: Outbox | None = None

    async def read(self, limit: int, block_ms: int) -> list[OutboxEntry]:
        """As `Outbox.read`; waits as long when there is no deployment at all."""
        if self._names != self._deployments.names:
            self._names = self._deployments.names
            self._outbox = self._make(sorted(self._names))
        if self._outbox is None:
            await asyncio.sleep(block_ms / 1000)
            return []
        return await self._outbox.read(limit, block_ms)

    async def load(self, entries: Sequence[OutboxEntry]) -> list[Task | None]:
        """As `Outbox.load`."""
        return await self._current.load(entries)

    async def archived(
        self, deployment: str, entries: Sequence[OutboxEntry], finished: Sequence[str]
    ) -> None:
        """As `Outbox.archived`."""
        await self._current.archived(deployment, entries, finished)

    @property
    def _current(self) -> Outbox:
        assert self._outbox is not None, "read comes first"
        return self._outbox
