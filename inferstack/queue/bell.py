"""How an idle replica learns of new work without asking again and again."""

import asyncio
import time

from redis.asyncio import Redis

from inferstack.queue.connection import connect, translated
from inferstack.queue.task_queue import prefix

SLACK = 5.0
"""Seconds that the socket waits beyond the blocking command itself."""

SHORT = 0.2
"""Waits below this many seconds ask instead of blocking: an otherwise idle Redis ends a
blocking command up to 100 ms late, which is far more than a batch may wait."""


class Bell:
    """Waits for the bell of one deployment, on a connection of its own."""

    def __init__(self, url: str, deployment: str, longest: float) -> None:
        """Args: longest: the longest wait that will be asked for, in seconds."""
        self._redis: Redis = connect(url, max_connections=1, timeout=longest + SLACK)
        self._key = f"{prefix(deployment)}bell"

    async def wait(self, seconds: float) -> bool:
        """Returns True when the bell rang, False after `seconds`."""
        with translated():
            if seconds < SHORT:
                return await self._ask(seconds)
            return await self._redis.blpop([self._key], timeout=seconds) is not None

    async def close(self) -> None:
        """Closes the connection."""
        await self._redis.aclose()

    async def _ask(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        pause = max(0.001, seconds / 10)
        while await self._redis.lpop(self._key) is None:
            left = until - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(pause, left))
        return True
