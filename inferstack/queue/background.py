"""Ending background work for sure."""

import asyncio
from typing import Any


async def end(task: "asyncio.Task[Any] | None") -> None:
    """Cancels a task and returns once it has ended, whatever it ended with.

    One cancel is not enough: before Python 3.12, `asyncio.wait_for` inside a library can
    swallow it when it comes in the same moment as the awaited result.
    """
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)
