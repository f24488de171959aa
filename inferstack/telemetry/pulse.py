"""A sign of life of processes without HTTP: files that their event loop touches.

Containers ask for it: `python -m inferstack.telemetry.pulse NAME` ends with 0 while it beats.
It says that the process is not stuck, not that its services answer: a process that waits for
Redis is healthy, and restarting it would help nobody. With `--ready` it says as well that the
process has found what it waited for at its start.
"""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from inferstack import config
from inferstack.errors import ConfigurationError
from inferstack.telemetry.peers import folder_for, remove_empty

log = logging.getLogger(__name__)

PERIOD = 2.0
"""Seconds between two beats."""
STALE = 20.0
"""Seconds without a beat from which on the process counts as stuck."""
EXIT_STUCK = os.EX_SOFTWARE
"""Status of a process that has found itself stuck and ends, to be started again."""


class Pulse:
    """What a process shows of itself."""

    def __init__(self, service: str, home: Path, lives: Callable[[], bool]) -> None:
        """Shows nothing yet; arguments as of `beating`."""
        self._service, self._home, self._lives = service, home, lives
        self._ready = False
        self._told = False

    def ready(self) -> None:
        """The process does its work from now on; from any thread."""
        self._ready = True
        self.beat()

    def beat(self) -> None:
        """Shows a sign of life, if there is one to show."""
        if not self._lives():
            return
        try:
            folder = folder_for(self._home)
            _file(folder, self._service, ready=False).touch()
            if self._ready:
                _file(folder, self._service, ready=True).touch()
        except OSError as error:
            # No reason not to work.
            if not self._told:
                log.warning("nobody can see whether this process lives: %s", error)
            self._told = True

    def end(self) -> None:
        """Takes the signs away."""
        with contextlib.suppress(OSError):
            folder = folder_for(self._home, make=False)
            for ready in (False, True):
                _file(folder, self._service, ready=ready).unlink(missing_ok=True)
            remove_empty(folder)


@asynccontextmanager
async def beating(
    service: str, home: Path, lives: Callable[[], bool] = lambda: True
) -> AsyncIterator[Pulse]:
    """Beats while the block runs and the event loop turns.

    Args:
        service: such as `recorder`; one process of a home may beat under a name.
        home: INFERSTACK_HOME.
        lives: whether what else there is turns, too.
    """
    pulse = Pulse(service, home, lives)
    pulse.beat()
    beats = asyncio.create_task(_repeat(pulse))
    try:
        yield pulse
    finally:
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
        pulse.end()


def alive(service: str, home: Path, *, ready: bool = False) -> bool:
    """Whether the process beat lately; with `ready`, whether it works as well."""
    try:
        file = _file(folder_for(home, make=False), service, ready=ready)
        return time.time() - file.stat().st_mtime < STALE
    except OSError:
        return False


async def _repeat(pulse: Pulse) -> None:
    # On this loop, or it would not show that it turns.
    while True:
        await asyncio.sleep(PERIOD)
        pulse.beat()


def _file(folder: Path, service: str, *, ready: bool) -> Path:
    return folder / f"{service}.{'ready' if ready else 'alive'}"


def main() -> int:
    """0 if the process named on the command line lives, and is ready if that is asked, else 1."""
    name, *more = sys.argv[1:] or [""]
    if not name or more not in ([], ["--ready"]):
        print("usage: python -m inferstack.telemetry.pulse NAME [--ready]", file=sys.stderr)
        return 2
    try:
        home = config.settings().inferstack_home
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    if not alive(name, home):
        print(f"{name} has shown no sign of life for {STALE:.0f} s", file=sys.stderr)
        return 1
    if more and not alive(name, home, ready=True):
        print(f"{name} is not ready: its log says what it waits for", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
