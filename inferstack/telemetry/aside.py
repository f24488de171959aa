"""What needs an event loop, in a process that has none: a thread of its own runs one."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")


@contextmanager
def aside(block: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Holds `block` open meanwhile; yields what it yields."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aside", daemon=True)
    thread.start()

    def run(step: Coroutine[Any, Any, S]) -> S:
        return asyncio.run_coroutine_threadsafe(step, loop).result()

    stack = AsyncExitStack()
    try:
        yield run(stack.enter_async_context(block))
    finally:
        run(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
