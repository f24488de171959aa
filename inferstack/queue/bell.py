"""How an idle replica learns of new work without asking again and again."""

from redis.asyncio import Redis
from redis.exceptions import TimeoutError

from inferstack.queue.connection import connect, translated
from inferstack.queue.task_queue import prefix

SLACK = 5.0
"""Seconds that the socket waits beyond the blocking command itself."""


class Bell:
    """Waits for the bell of one deployment, on a connection of its own."""

    def __init__(self, url: str, deployment: str, longest: float) -> None:
        """Args: longest: the longest wait that will be asked for, in seconds."""
        self._redis: Redis = connect(url, max_connections=1, timeout=longest + SLACK)
        self._key = f"{prefix(deployment)}bell"

    async def wait(self, seconds: float) -> bool:
        """Returns True when the bell rang, False after `seconds`."""
        try:
            with translated():
                return await self._redis.blpop([self._key], timeout=seconds) is not None
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Closes the connection."""
        await self._redis.aclose()
