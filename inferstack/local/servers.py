"""The Redis and PostgreSQL of a home without the rest of its stack, for backup and restore."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from inferstack.config import Settings
from inferstack.local import stack
from inferstack.local.child import Child
from inferstack.local.home import Home
from inferstack.local.program import Program


@asynccontextmanager
async def servers(home: Home, wanted: Settings) -> AsyncIterator[Settings]:
    """Runs those that no URL names, on their data or on new, empty data.

    Args:
        home: prepared, and locked by this process.
        wanted: the settings from the environment.

    Yields:
        The settings with every URL in them.

    Raises:
        StackError: a program is missing, does not fit the data, or cannot run.
    """
    plan = await asyncio.to_thread(stack.plan, home, wanted)
    async with AsyncExitStack() as running:
        for program in (plan.redis, plan.postgres):
            if program is not None:
                await running.enter_async_context(server(program, home.logs))
        yield plan.settings


@asynccontextmanager
async def server(program: Program, logs: Path) -> AsyncIterator[None]:
    """Runs one server until the block ends.

    Args:
        program: what to run.
        logs: the folder for its log.

    Raises:
        StackError: it did not become ready.
    """
    child = Child(program, logs / f"{program.name}.log", lambda: None)
    try:
        child.start()
        await child.ready()
        yield
    finally:
        await child.stop()
