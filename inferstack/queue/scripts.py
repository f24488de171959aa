"""Loads the Lua scripts and runs them, whatever Redis has forgotten."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

SHARED = ("common", "breaker")
"""In front of every script."""

Argument = bytes | str | int | float
Execute = Callable[..., Awaitable[Any]]


class Script(NamedTuple):
    """One Lua script with the shared part in front of it."""

    source: str
    sha: str


@lru_cache
def load(name: str) -> Script:
    """Reads `scripts/<name>.lua`; what all share goes behind its shebang."""
    folder = files("inferstack.queue") / "scripts"
    shebang, body = (folder / f"{name}.lua").read_text().split("\n", 1)
    shared = "\n".join((folder / f"{part}.lua").read_text() for part in SHARED)
    source = f"{shebang}\n{shared}\n{body}"
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


async def run(redis: "Redis", name: str, prefix: str, args: Sequence[Argument]) -> Any:
    """Runs a script on one deployment's keys.

    The script cache of Redis dies with its process, so a miss sends the source.
    """
    script = load(name)
    execute: Execute = redis.execute_command
    try:
        return await execute("EVALSHA", script.sha, 1, prefix, *args)
    except NoScriptError:
        return await execute("EVAL", script.source, 1, prefix, *args)
