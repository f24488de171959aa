"""Where the tasks of idempotency keys are."""

from redis.asyncio import Redis

from inferstack.queue import scripts
from inferstack.queue.codec import pack
from inferstack.queue.connection import translated
from inferstack.queue.grouping import Grouper

PREFIX = "is:{keys}:"

UNUSED = 60.0
"""Seconds that a key is remembered which no task was accepted for, longer than any request takes.

What is refused must not fill Redis; `enqueue.lua` prolongs the others.
"""


class KeyRoutes:
    """Which deployment each idempotency key went to; asked many at a time."""

    def __init__(self, redis: "Redis", keep: float = UNUSED) -> None:
        """Args: keep: seconds that a key is remembered before a task was accepted for it."""
        self._redis = redis
        self._keep_ms = int(keep * 1000)
        self._routes: Grouper[tuple[str, str, str, int], str] = Grouper(self._ask)

    async def route(self, tenant: str, key: str, deployment: str) -> str:
        """The deployment that holds the key; from now on the given one, if it is new."""
        return await self._routes.ask((tenant, key, deployment, 0))

    async def known(self, tenant: str, key: str) -> str | None:
        """The deployment that holds the key, None if it is new; that it stays."""
        return await self._routes.ask((tenant, key, "", 0)) or None

    async def move(self, tenant: str, key: str, deployment: str) -> None:
        """Has a key belong to another deployment; the one before must never take it again."""
        await self._routes.ask((tenant, key, deployment, 1))

    async def _ask(self, keys: list[tuple[str, str, str, int]]) -> list[str]:
        with translated():
            answer = await scripts.run(self._redis, "route", PREFIX, (self._keep_ms, pack(keys)))
        return [name.decode() for name in answer]
