"""Starting, finding and stopping the stack of a home, from the outside."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from inferstack.config import Settings
from inferstack.errors import StackError
from inferstack.local import checks, leftovers, logs, processes, stack, state
from inferstack.local.home import Home
from inferstack.local.state import Phase, StackState

STOP_PATIENCE = 60.0
"""Seconds that a supervisor gets to stop everything, beyond those that its children get."""


def run(home: Home, wanted: Settings, *, ray: bool, show: Callable[[StackState], None]) -> None:
    """Runs the stack in this process until it is told to stop.

    Raises:
        StackError: one runs already, or it cannot start; nothing is left running.
    """
    # Imported by `up` alone: other commands answer sooner without.
    from inferstack.local.supervisor import Supervisor

    _prepare(home, wanted)
    if not home.lock():
        raise StackError(f"another `inferstack up` is starting or stopping in {home.root}")
    try:
        asyncio.run(Supervisor(home, wanted, ray=ray, show=show).run())
    finally:
        home.unlock()


def run_detached(
    home: Home, wanted: Settings, arguments: Sequence[str], show: Callable[[StackState], None]
) -> StackState:
    """Runs the stack in a process of its own, and returns once it is ready.

    Args:
        home: where it keeps its state.
        wanted: the settings; the new process gets them by its environment.
        arguments: what follows `inferstack` on the new command line.
        show: called with the state while it starts.

    Raises:
        StackError: one runs already, or it could not start.
    """
    _prepare(home, wanted)
    log = home.logs / "supervisor.log"
    log.write_bytes(b"")
    # For appending: it is cut when it has grown too long.
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "inferstack.cli", *arguments],
            env=stack.code_environment(wanted),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return _watch(home, process, log, show)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait(_patience(running(home)))
        raise


def running(home: Home) -> StackState | None:
    """What runs in a home; None if nothing does."""
    found = state.read(home.state_file)
    return found if found is not None and processes.alive(found.supervisor) else None


def left(home: Home) -> list[str]:
    """The names of what still runs though its supervisor was killed; empty if nothing does."""
    return leftovers.find(home) if home.root.exists() and running(home) is None else []


def absence(home: Home) -> str:
    """What to tell somebody who looks for a stack in a home where nothing runs."""
    if home.identity() is None:
        return (
            f"No stack has run in {home.root}: change to the folder that holds its "
            f"{home.root.name}, or set INFERSTACK_HOME."
        )
    return f"Nothing runs in {home.root}. Start it with `inferstack up`."


def refuse_second(home: Home) -> None:
    """Raises StackError if a stack runs in this home."""
    if found := running(home):
        raise StackError(
            f"inferstack runs already at {found.url} (pid {found.supervisor.pid}): "
            "use it, or stop it with `inferstack down`"
        )


def refuse_part(home: Home) -> None:
    """Raises StackError if a home holds a part of a backup."""
    if home.restoring.exists():
        raise StackError(
            f"{home.root} holds a part of a backup, whose restore was interrupted: "
            "restore it again, or set INFERSTACK_HOME to another folder"
        )


def stop(home: Home, show: Callable[[StackState], None]) -> bool:
    """Stops what runs in a home, also what a killed supervisor left; False if nothing did.

    Ctrl-C meanwhile has it wait for no batch any more.

    Args:
        home: where it runs.
        show: called with the state meanwhile.

    Raises:
        StackError: another command is at work in this home.
    """
    if not home.root.exists():
        return False
    found = running(home)
    if found is not None:
        # Not again if it stops already: asked twice, it kills what runs.
        if found.phase is not Phase.STOPPING:
            _signal(found, signal.SIGTERM)
        _await_end(home, found, show)
        if processes.alive(found.supervisor):
            _signal(found, signal.SIGKILL)
    return _stop_leftovers(home) or found is not None


def known_settings(home: Home, wanted: Settings) -> Settings:
    """The settings with the URLs of a home filled in, for commands beside a running stack."""
    identity = home.identity()
    return wanted if identity is None else stack.stack_settings(home, identity, wanted)


def _prepare(home: Home, wanted: Settings) -> None:
    """Refuses what cannot start before anything is written, and makes the folders."""
    refuse_second(home)
    refuse_part(home)
    checks.default_model(wanted)
    home.prepare()


def _await_end(home: Home, found: StackState, show: Callable[[StackState], None]) -> None:
    """Waits until a supervisor has ended, as long as it may take."""
    until = time.monotonic() + _patience(found)
    while processes.alive(found.supervisor) and time.monotonic() < until:
        try:
            if (current := state.read(home.state_file)) is not None:
                show(current)
            time.sleep(0.1)
        except KeyboardInterrupt:
            _signal(found, signal.SIGTERM)


def _patience(found: StackState | None) -> float:
    """Seconds that a supervisor gets to stop everything."""
    children = found.children if found is not None else []
    return STOP_PATIENCE + sum(seconds for child in children for _, seconds in child.stop)


def _signal(found: StackState, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.supervisor.pid, number)


def _stop_leftovers(home: Home) -> bool:
    until = time.monotonic() + 5.0
    while not home.lock():
        if time.monotonic() > until:
            raise StackError(f"another `inferstack` is starting or stopping in {home.root}")
        time.sleep(0.1)
    try:
        return bool(leftovers.end(home))
    finally:
        home.unlock()


def _watch(
    home: Home, process: subprocess.Popen[bytes], log: Path, show: Callable[[StackState], None]
) -> StackState:
    while process.poll() is None:
        found = state.read(home.state_file)
        if found is not None and found.supervisor.pid == process.pid:
            show(found)
            if found.phase is Phase.READY:
                return found
        time.sleep(0.1)
    raise StackError(logs.last_line(log) or f"the supervisor ended: see {log}")
