"""Which deployments there are, and their rows in PostgreSQL."""

from inferstack.deployment import Deployment
from inferstack.queue.registry import Registry
from inferstack.storage.models import Models


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
