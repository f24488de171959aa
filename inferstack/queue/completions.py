"""How an API process learns that tasks finished: one channel a process, for all its tasks."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from inferstack.concurrency import end
from inferstack.errors import ConfigurationError, InferstackError
from inferstack.queue.codec import News, decode_news
from inferstack.queue.connection import translated
from inferstack.telemetry.logs import tell

log = logging.getLogger(__name__)

Listener = Callable[[News], None]

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 2.0
"""Seconds between two tries to connect; they double from the first to the longest."""

PING = 5.0
"""Seconds between two pings."""
SILENCE = 15.0
"""Seconds without a message or an answer to a ping until the connection is given up: a server
that stands still keeps it open for ever, and meanwhile its name may lead to another."""


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
        self._failing = False
        self._heard = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects, and returns once completions arrive; waits for Redis as long as that takes.

        Raises:
            ConfigurationError: Redis refuses the credentials.
        """
        started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._listen_forever(started))
        await started

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

    async def _listen_forever(self, started: "asyncio.Future[None]") -> None:
        """Listens, and connects again whatever happens: without it nobody's wait would end."""
        pause = FIRST_PAUSE
        while True:
            try:
                with translated():
                    await self._listen(started)
            except Exception as error:
                if isinstance(error, ConfigurationError) and not started.done():
                    started.set_exception(error)
                    return
                # What listened well for a while is tried again at once.
                pause = FIRST_PAUSE if not self._failing else min(2 * pause, LONGEST_PAUSE)
                self._report(error)
            await asyncio.sleep(pause)

    def _report(self, error: Exception) -> None:
        """One line for each outage."""
        if not self._failing:
            unexpected = not isinstance(error, InferstackError)
            log.warning("completions do not arrive: %s", error, exc_info=unexpected)
        self._failing = True

    async def _listen(self, started: "asyncio.Future[None]") -> None:
        async with (
            asyncio.timeout(SILENCE) as limit,
            self._redis.pubsub(ignore_subscribe_messages=False) as pubsub,
        ):
            await pubsub.subscribe(f"is:done:{self.name}")
            pinging = asyncio.create_task(self._ping(pubsub, limit))
            try:
                async for message in pubsub.listen():
                    # All that a message costs: the timer is put off with the pings.
                    self._heard = True
                    if message["type"] == "message":
                        self._deliver_all(message["data"])
                    elif message["type"] == "subscribe":
                        limit.reschedule(None)
                        await self._subscribed(started)
                        limit.reschedule(_from_now(SILENCE))
            finally:
                await end(pinging)

    def _deliver_all(self, body: bytes) -> None:
        finished = decode_news(body)
        for news in finished:
            self.deliver(news)
        tell(log, logging.DEBUG, "its end is known", (n.task_id for n in finished))

    async def _subscribed(self, started: "asyncio.Future[None]") -> None:
        """From now on messages arrive; finds what finished before."""
        if not started.done():
            started.set_result(None)
        if self._listeners:
            await self._sweep(list(self._listeners))
        if self._failing:
            log.info("completions arrive again")
        self._failing = False

    async def _ping(self, pubsub: PubSub, limit: asyncio.Timeout) -> None:
        """Puts the limit off as long as something is heard; a broken connection is the reader's."""
        while True:
            self._heard = False
            with suppress(RedisError, OSError):
                await pubsub.ping()
            await asyncio.sleep(PING)
            # There is no limit while a sweep goes on, and none to put off once it has passed.
            if self._heard and limit.when() is not None and not limit.expired():
                limit.reschedule(_from_now(SILENCE))


def _from_now(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds
