"""What a supervisor that was killed left running."""

import signal
from collections.abc import Iterator

from inferstack.local import postgres_server, processes, redis_server, state
from inferstack.local.home import Home
from inferstack.local.place import locate
from inferstack.local.processes import ProcessId, StopStep

GRACE = 5.0
"""Seconds for one of inferstack's own processes; whatever it was doing comes back by its lease."""


def end(home: Home) -> list[str]:
    """Ends every process that an earlier supervisor of this home left; returns their names.

    Only processes are ended that the state file names with their start time, that carry the
    mark of this home, or that are servers working on this home's data. Call it with the lock.
    """
    ended = []
    known = state.read(home.state_file)
    for child in reversed(known.children if known else []):
        if child.process is not None and processes.alive(child.process):
            processes.end(child.process, [(s, min(g, GRACE)) for s, g in child.stop])
            ended.append(child.name)
    identity = home.identity()
    strays = processes.marked(identity.stack_id) if identity else []
    if strays:
        processes.end_all(strays, GRACE)
        ended.append(f"{len(strays)} more")
    for name, server, steps in _servers(home):
        processes.end(server, steps)
        ended.append(name)
    home.state_file.unlink(missing_ok=True)
    return ended


def _servers(home: Home) -> Iterator[tuple[str, ProcessId, tuple[StopStep, ...]]]:
    """Servers that a state file misses: the supervisor died before it wrote them down."""
    found = processes.server_at(redis_server.pid_file(home.redis), home.redis, redis_server.NAMES)
    if found:
        yield "redis", found, ((signal.SIGTERM, GRACE),)
    data = locate(home.root).data
    found = processes.server_at(postgres_server.pid_file(data), data, postgres_server.NAMES)
    if found:
        yield "postgres", found, ((signal.SIGINT, GRACE), (signal.SIGQUIT, GRACE))
