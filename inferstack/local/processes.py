"""Processes by identity, so that a reused process id is never signalled."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

MARK = "INFERSTACK_STACK"
"""The environment variable by which a process is known to belong to a stack."""

PROC = Path("/proc")

StopStep = tuple[int, float]
"""A signal, and the seconds a process gets to end after it."""


class ProcessId(msgspec.Struct, frozen=True):
    """A process for good: ids are reused, an id with its start time is not."""

    pid: int
    started: str
    """Opaque; differs between any two processes that had the same id."""


def identify(pid: int) -> ProcessId | None:
    """The identity of a living process; None if there is none (a zombie does not live)."""
    started = _started_linux(pid) if PROC.joinpath("self/stat").exists() else _started(pid)
    return None if started is None else ProcessId(pid, started)


def alive(process: ProcessId) -> bool:
    """Whether that very process still lives."""
    return identify(process.pid) == process


def end(process: ProcessId, steps: Sequence[StopStep]) -> None:
    """Ends a process that is not a child of this one; its group is killed if no step helped.

    Args:
        process: what to end; nothing happens if it no longer lives.
        steps: signals to try in this order, each with seconds to wait.
    """
    for number, grace in steps:
        if not alive(process):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        _wait(process, grace)
    if alive(process):
        kill_group(process.pid)
        _wait(process, 5.0)


def kill_group(leader: int) -> None:
    """Kills what is left of the group of a process that led its own session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def marked(mark: str) -> list[ProcessId]:
    """Living processes that carry the mark of a home, and their descendants; empty without /proc.

    Finds what a state file misses: the grandchildren (Ray's processes leave their parent's
    session), and a child of a supervisor killed before it could write the child down.
    """
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for entry in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    # A title may be written over the environment, as Ray does it: then only the parent tells.
    parents = {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    found.discard(os.getpid())
    return [process for pid in sorted(found) if (process := identify(pid))]


def end_all(processes: Iterable[ProcessId], grace: float) -> None:
    """Ends many processes together: asks, waits once, then kills."""
    rest = [process for process in processes if alive(process)]
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in rest:
            if alive(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
        until = time.monotonic() + seconds
        for process in rest:
            _wait(process, until - time.monotonic())


def server_at(pid_file: Path, folder: Path, names: tuple[str, ...]) -> ProcessId | None:
    """The server that a pid file speaks of, if it truly is one that works in that folder.

    Args:
        pid_file: its first line is a process id.
        folder: the working directory that the server must have.
        names: the names that its program may have.
    """
    try:
        process = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
        ours = process.name() in names and Path(process.cwd()).samefile(folder)
    except (OSError, ValueError, psutil.Error):
        return None
    return identify(process.pid) if ours else None


def _wait(process: ProcessId, seconds: float) -> None:
    # The process is not our child: there is nothing to wait on but its entry in the table.
    until = time.monotonic() + seconds
    while alive(process) and time.monotonic() < until:
        time.sleep(0.05)


def _started_linux(pid: int) -> str | None:
    try:
        text = PROC.joinpath(str(pid), "stat").read_text()
        boot = PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # proc(5): the name in parentheses may hold anything; state is field 3, starttime field 22.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _started(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return str(process.create_time())
    except psutil.Error:
        return None
