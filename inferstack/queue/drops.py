"""Tasks that nobody wants any more, told to the replicas of their deployment."""

import asyncio
import logging
from collections.abc import Callable

from redis.asyncio import Redis

from inferstack.errors import InferstackError
from inferstack.queue.connection import connect, translated
from inferstack.queue.task_queue import prefix

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds between two tries to connect."""


class Drops:
    """Hears which running tasks were cancelled or expired, on a connection of its own."""

    def __init__(self, url: str, deployment: str) -> None:
        """Connects with the first `listen`."""
        self._redis: Redis = connect(url, max_connections=1, timeout=None)
        self._channel = f"{prefix(deployment)}drop"

    async def listen(self, drop: Callable[[str], object]) -> None:
        """Calls `drop` with the id of each such task, until cancelled.

        What is missed while Redis is away shows up when the replica extends its leases.
        """
        while True:
            try:
                with translated():
                    await self._listen(drop)
            except InferstackError as error:
                log.debug("cancellations do not arrive: %s", error)
            await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Closes the connection."""
        await self._redis.aclose()

    async def _listen(self, drop: Callable[[str], object]) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            async for message in pubsub.listen():
                if message["type"] == "message":
                    drop(message["data"].decode())
