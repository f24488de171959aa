"""What asyncio lacks.

Ending a task for sure, a group of tasks with a limit, a bounded queue, looking before closing.
"""

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


async def end(task: "asyncio.Task[Any] | None") -> None:
    """Cancels a task and returns once it has ended, whatever it ended with.

    One cancel is not enough: before Python 3.12, `asyncio.wait_for` inside a library can
    swallow it when it comes in the same moment as the awaited result.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)


def unread(transport: asyncio.BaseTransport) -> bool:
    """Whether bytes, or the end of the connection, wait for the loop to read them.

    A loop that was held up has not seen what came meanwhile.
    """
    return not transport.is_closing() and readable(transport.get_extra_info("socket"))


def close_if_silent(transport: asyncio.Transport) -> bool:
    """Closes a connection on which nothing waits to be read, in one step.

    The peer's kernel knows of the end at once. `close` alone tells it a turn of the loop later,
    and what the peer sends in between is lost without a sign.

    Returns:
        Whether it is closed or about to be; otherwise the loop is yet to read something.
    """
    if unread(transport):
        return False
    if not transport.is_closing() and not transport.get_write_buffer_size():
        with suppress(OSError), transport.get_extra_info("socket").dup() as own:
            own.shutdown(socket.SHUT_WR)
    transport.close()
    return True


def readable(source: socket.socket) -> bool:
    """Whether it could be read from, or a connection be accepted, without waiting."""
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@asynccontextmanager
async def limited_group(
    limit: int,
) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """A TaskGroup of which at most `limit` tasks run at once.

    If a task or the block raises, the others are cancelled, and once all have ended that error
    is raised as it is, not in an ExceptionGroup.

    Yields:
        A function that calls a coroutine function with arguments, as soon as there is room.
    """
    room = asyncio.Semaphore(limit)

    async def start(work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
        await room.acquire()
        group.create_task(work(*arguments)).add_done_callback(lambda _: room.release())

    try:
        async with asyncio.TaskGroup() as group:
            yield start
    except BaseExceptionGroup as failed:
        first = failed.exceptions[0]
        raise first from first.__cause__


class Slots:
    """So many at once, and so many more that wait; who comes then is refused at once.

    Keeps work of one kind from taking all there is of something, such as database connections.
    """

    def __init__(self, parallel: int, waiting: int, refusal: Callable[[], Exception]) -> None:
        """Limits what runs at once on the loop that uses it.

        Args:
            parallel: slots there are.
            waiting: how many may wait for one.
            refusal: makes the error of who may not wait.
        """
        self._free = asyncio.Semaphore(parallel)
        self._room = waiting
        self._refusal = refusal

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one of the slots.

        Raises:
            Exception: too many wait already; what `refusal` made.
        """
        if self._room <= 0:
            raise self._refusal()
        self._room -= 1
        try:
            await self._free.acquire()
        finally:
            self._room += 1
        try:
            yield
        finally:
            self._free.release()
