"""What asyncio lacks: ending a task for sure, and a group of tasks with a limit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


async def end(task: "asyncio.Task[Any] | None") -> None:
    """Cancels a task and returns once it has ended, whatever it ended with.

    One cancel is not enough: before Python 3.12, `asyncio.wait_for` inside a library can
    swallow it when it comes in the same moment as the awaited result.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)


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
