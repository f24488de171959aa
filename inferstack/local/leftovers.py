"""What a supervisor that was killed left running."""

import contextlib
import os
import signal
from collections.abc import Iterator

from inferstack.local import postgres_server, processes, redis_server, state
from inferstack.local.home import Home
from inferstack.local.place import data_of
from inferstack.local.processes import ProcessId, StopStep
from inferstack.telemetry import discovery, peers

GRACE = 5.0
"""Seconds for one of inferstack's own processes; whatever it was doing comes back by its lease."""


def find(home: Home) -> list[str]:
    """The names of what an earlier supervisor of this home left running."""
    known = state.read(home.state_file)
    living = {c.name: c.process for c in (known.children if known else []) if _lives(c.process)}
    names = list(living)
    pids = {process.pid for process in living.values() if process}
    names += [name for name, server, _ in _servers(home) if server.pid not in pids]
    more = [process for process in _strays(home) if process.pid not in pids]
    return [*names, f"{len(more)} more"] if more else names


def end(home: Home) -> list[str]:
    """Ends every process that an earlier supervisor of this home left; returns their names.

    Only processes are ended that the state file names with their start time, that carry the
    mark of this home, or that are servers working on this home's data. Call it with the lock.
    """
    ended = []
    known = state.read(home.state_file)
    # Looked for first: once its parent has ended, nothing may tell whose a process is.
    strays = _strays(home)
    for child in reversed(known.children if known else []):
        if child.process is not None and _lives(child.process):
            processes.end(child.process, [(s, min(g, GRACE)) for s, g in child.stop])
            ended.append(child.name)
    if strays := list(filter(processes.alive, {*strays, *_strays(home)})):
        processes.end_all(strays, GRACE)
        ended.append(f"{len(strays)} more")
    for name, server, steps in _servers(home):
        processes.end(server, steps)
        ended.append(name)
    peers.sweep(home.root)
    discovery.sweep(home.root)
    home.state_file.unlink(missing_ok=True)
    return ended


def kill(home: Home) -> None:
    """Kills every process that carries the mark of this home at once; not its servers."""
    for process in _strays(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _lives(process: ProcessId | None) -> bool:
    return process is not None and processes.alive(process)


def _strays(home: Home) -> list[ProcessId]:
    """Processes with the mark of this home: inferstack's own, and what these have started."""
    identity = home.identity()
    return processes.marked(home.mark(identity)) if identity else []


def _servers(home: Home) -> Iterator[tuple[str, ProcessId, tuple[StopStep, ...]]]:
    """Servers that a state file misses: the supervisor died before it wrote them down."""
    found = processes.server_at(redis_server.pid_file(home.redis), home.redis, redis_server.NAMES)
    if found:
        yield "redis", found, ((signal.SIGTERM, GRACE),)
    data = data_of(home)
    found = processes.server_at(postgres_server.pid_file(data), data, postgres_server.NAMES)
    if found:
        yield "postgres", found, ((signal.SIGINT, GRACE), (signal.SIGQUIT, GRACE))
