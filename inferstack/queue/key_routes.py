"""Where the tasks of idempotency keys are."""

from redis.asyncio import Redis

from inferstack.queue import scripts
from inferstack.queue.codec import pack
from inferstack.queue.connection import translated
from inferstack.queue.grouping import Grouper

PREFIX = "is:{keys}:"


class KeyRoutes:
    """Which deployment each idempotency key went to; asked many at a time."""

    def __init__(self, redis: "Redis", keep: float) -> None:
        """Args: keep: seconds that a key is remembered."""
        self._redis = redis
        self._keep_ms = int(keep * 1000)
        self._routes: Grouper[tuple[str, str, str, int], str] = Grouper(self._ask)

    async def route(self, tenant: str, key: str, deployment: str) -> str:
        """The deployment that holds the key; from now on the given one, if it is new."""
        return await self._routes.ask((tenant, key, deployment, 0))

    async def move(self, tenant: str, key: str, deployment: str) -> None:
        """Has a key belong to another deployment; the one before must never take it again."""
        await self._routes.ask((tenant, key, deployment, 1))

    async def _ask(self, keys: list[tuple[str, str, str, int]]) -> list[str]:
        with translated():
            answer = await scripts.run(self._redis, "route", PREFIX, (self._keep_ms, pack(keys)))
        return [name.decode() for name in answer]
