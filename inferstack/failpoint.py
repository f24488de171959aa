"""Named places where a test can have a process die. In production nothing here does anything.

A fault test writes `<name> <count>` into the file that FAILPOINT_FILE names, at any time. The
process that passes the place so named for the `count`th time after that takes the file away, so
that it happens once, and kills itself with SIGKILL: what a crash at this very point looks like.
`<name> <count> stop` stops it with SIGSTOP instead, until the test lets it go on.
"""

import os
import signal
from pathlib import Path

from inferstack.config import Settings

NAMES = frozenset(
    f"{when}-{what}"
    for when in ("before", "after")
    for what in ("enqueue", "claim", "predict", "complete", "archive")
)
"""`enqueue`: the commit of an API process; `claim`, `predict`, `complete`: a replica's; `archive`:
the recorder's commit in PostgreSQL, so `after-archive` is before Redis is told of it."""

_file: Path | None = None
_passed: dict[tuple[str, int], int] = {}


def arm(settings: Settings) -> None:
    """Lets failpoints of this process fire if FAILPOINT_FILE is set."""
    global _file
    _file = settings.failpoint_file


def hit(name: str) -> None:
    """A place called `name` is passed; the process may not survive it."""
    if _file is not None:
        _hit(_file, name)


def _hit(file: Path, name: str) -> None:
    try:
        # What it was armed with before does not count.
        written = file.stat().st_mtime_ns
        wanted, count, *rest = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return
    if wanted != name:
        return
    _passed[name, written] = passed = _passed.get((name, written), 0) + 1
    if passed < int(count):
        return
    try:
        file.rename(file.with_name(f"{file.name}.taken"))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP if rest == ["stop"] else signal.SIGKILL)
