"""Which deployments exist and who serves them, for every process to read."""

import msgspec
from redis.asyncio import Redis

from inferstack.deployment import Deployment, ReplicaStatus
from inferstack.queue.codec import encode
from inferstack.queue.connection import translated
from inferstack.queue.task_queue import prefix

KEY = "is:deployments"

_deployment = msgspec.json.Decoder(Deployment)
_replica = msgspec.json.Decoder(ReplicaStatus)


class Registry:
    """The hash `is:deployments`: name -> Deployment as JSON."""

    def __init__(self, redis: "Redis") -> None:
        """Args: redis: a client from `connection.connect`."""
        self._redis = redis

    async def put(self, deployment: Deployment) -> None:
        """Makes a deployment known, or replaces what was known of it."""
        with translated():
            await self._redis.hset(KEY, deployment.name, encode(deployment))

    async def remove(self, name: str) -> None:
        """Forgets a deployment; its tasks stay."""
        with translated():
            await self._redis.hdel(KEY, name)

    async def all(self) -> list[Deployment]:
        """Every known deployment, by name."""
        with translated():
            rows = await self._redis.hgetall(KEY)
        return sorted((_deployment.decode(row) for row in rows.values()), key=lambda d: d.name)

    async def replicas(self, name: str) -> list[ReplicaStatus]:
        """The live replicas of a deployment."""
        with translated():
            rows = await self._redis.hgetall(f"{prefix(name)}status")
        return sorted((_replica.decode(row) for row in rows.values()), key=lambda r: r.worker)
