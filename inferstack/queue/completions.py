"""How an API process learns that tasks finished: one channel a process, for all its tasks."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from inferstack.errors import InferstackError
from inferstack.queue.background import end
from inferstack.queue.codec import News, decode_news

log = logging.getLogger(__name__)

Listener = Callable[[News], None]


class CompletionChannel:
    """Hands every finished task to the listeners registered under its id.

    Messages are lost while the connection is down. So after each (re)connection `sweep` is
    called, which must look up by itself what finished meanwhile.
    """

    def __init__(self, redis: "Redis", sweep: Callable[[list[str]], Awaitable[None]]) -> None:
        """Starts nothing.

        Args:
            redis: a client that may block for ever.
            sweep: called with the ids still listened for, after each connection.
        """
        self.name = uuid.uuid4().hex[:12]
        self._redis = redis
        self._sweep = sweep
        self._listeners: dict[str, list[Listener]] = {}
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects, and returns once completions arrive."""
        self._task = asyncio.create_task(self._listen_forever())
        await self._connected.wait()

    async def stop(self) -> None:
        """Ends the subscription."""
        await end(self._task)

    def listen(self, task_id: str, listener: Listener) -> None:
        """Registers a listener of a task; it is called once and then forgotten."""
        self._listeners.setdefault(task_id, []).append(listener)

    def forget(self, task_id: str, listener: Listener) -> None:
        """Unregisters a listener, if it is still there."""
        listeners = self._listeners.get(task_id)
        if listeners is not None and listener in listeners:
            listeners.remove(listener)
            if not listeners:
                del self._listeners[task_id]

    def deliver(self, news: News) -> None:
        """Calls the listeners of a finished task, if there still are any."""
        for listener in self._listeners.pop(news.task_id, ()):
            listener(news)

    async def _listen_forever(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, InferstackError, OSError) as error:
                self._connected.clear()
                log.warning("completion channel lost: %s", error)
                await asyncio.sleep(0.2)

    async def _listen(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=False) as pubsub:
            await pubsub.subscribe(f"is:done:{self.name}")
            async for message in pubsub.listen():
                if message["type"] == "message":
                    for news in decode_news(message["data"]):
                        self.deliver(news)
                elif message["type"] == "subscribe":
                    self._connected.set()
                    if self._listeners:
                        await self._sweep(list(self._listeners))
