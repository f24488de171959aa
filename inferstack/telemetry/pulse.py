"""A sign of life of processes without HTTP: a file that their event loop touches.

Containers ask for it: `python -m inferstack.telemetry.pulse NAME` ends with 0 while it beats.
It says that the process is not stuck, not that its services answer: a process that waits for
Redis is healthy, and restarting it would help nobody.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from inferstack import config
from inferstack.errors import ConfigurationError
from inferstack.telemetry.peers import folder_for

log = logging.getLogger(__name__)

PERIOD = 2.0
"""Seconds between two beats."""
STALE = 20.0
"""Seconds without a beat from which on the process counts as stuck."""


@asynccontextmanager
async def beating(service: str, home: Path) -> AsyncIterator[None]:
    """Beats while the block runs and the event loop turns.

    Args:
        service: such as `recorder`; one process of a home may beat under a name.
        home: INFERSTACK_HOME.
    """
    try:
        path = _file(service, home)
        path.touch()
    except OSError as error:
        # No reason not to work.
        log.warning("nobody can see whether this process lives: %s", error)
        yield
        return
    beat = asyncio.create_task(_beat(path))
    try:
        yield
    finally:
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)
        path.unlink(missing_ok=True)


def alive(service: str, home: Path) -> bool:
    """Whether the process beat lately."""
    try:
        return time.time() - _file(service, home).stat().st_mtime < STALE
    except OSError:
        return False


async def _beat(path: Path) -> None:
    while True:
        with contextlib.suppress(OSError):
            path.touch()  # noqa: ASYNC240  # on this loop, or it would not show that it turns
        await asyncio.sleep(PERIOD)


def _file(service: str, home: Path) -> Path:
    return folder_for(home) / f"{service}.alive"


def main() -> int:
    """0 if the process named on the command line lives, else 1."""
    if len(sys.argv) != 2:
        print("usage: python -m inferstack.telemetry.pulse NAME", file=sys.stderr)
        return 2
    try:
        home = config.settings().inferstack_home
    except ConfigurationError as error:
        print(error.detail, file=sys.stderr)
        return 1
    if alive(sys.argv[1], home):
        return 0
    print(f"{sys.argv[1]} has shown no sign of life for {STALE:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
