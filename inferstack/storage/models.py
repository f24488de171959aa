"""Which deployments there are and were."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Text, cast, func, select
from sqlalchemy.dialects.postgresql import insert

from inferstack.deployment import Deployment
from inferstack.storage.database import Database
from inferstack.storage.tables import models as table

_decode = msgspec.json.Decoder(Deployment).decode


class Models:
    """One row for each model version that was ever deployed."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database

    async def upsert(self, deployments: Sequence[Deployment]) -> None:
        """Stores deployments as they are now.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        if not deployments:
            return
        rows = [
            {
                "model": deployment.model,
                "version": deployment.version,
                "state": deployment.state.value,
                "reason": deployment.reason,
                "engine": deployment.engine,
                "config": msgspec.to_builtins(deployment),
            }
            for deployment in sorted(deployments, key=lambda d: (d.model, d.version))
        ]
        query = insert(table).values(rows)
        changes = {name: query.excluded[name] for name in ("state", "reason", "engine", "config")}
        query = query.on_conflict_do_update(
            index_elements=[table.c.model, table.c.version],
            set_={**changes, "updated_at": func.now()},
        )
        async with self._database.transaction() as connection:
            await connection.execute(query)

    async def all(self) -> list[Deployment]:
        """Every deployment, as it was stored last, by model and version.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        query = select(cast(table.c.config, Text)).order_by(table.c.model, table.c.version)
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).scalars().all()
        return [_decode(row) for row in rows]
