"""The children's log files: bounded, and readable for the one line that matters."""

import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

LIMIT = 10 * 1024 * 1024
"""Bytes of a log before it becomes the `.1` file; one old file is kept for each child."""

TAIL = 16 * 1024


class _Record(msgspec.Struct):
    """What people need of a JSON log line."""

    message: str


def bound(log: Path, limit: int = LIMIT) -> None:
    """Copies a log that is too long to its `.1` file and empties it.

    The child keeps its file open for appending and goes on at the new start. What it writes
    between copy and cut is lost; the other way, a pipe through the supervisor, would stop
    the children whenever the supervisor is killed.
    """
    old = log.with_name(f"{log.name}.1")
    try:
        if log.stat().st_size <= limit:
            return
        try:
            shutil.copyfile(log, old)
        except OSError:
            old.unlink(missing_ok=True)  # the disk is full: room is worth more than old lines
        with log.open("r+b") as file:
            file.truncate(0)
    except FileNotFoundError:
        return


def last_line(log: Path) -> str | None:
    """What the last line of a log that is not empty says; None if there is none to read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((_said(line.strip()) for line in reversed(lines) if line.strip()), None)


def _said(line: str) -> str:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(line, type=_Record).message
    return line
