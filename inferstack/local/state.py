"""What a supervisor writes down, for `status`, `down`, `up --detach` and the next `up`."""

from enum import StrEnum
from pathlib import Path

import msgspec

from inferstack.errors import StackError
from inferstack.local.home import folder_id, write_private
from inferstack.local.processes import ProcessId, StopStep

STOP = "stop "
"""How the name of a step begins that stops a child."""


class Phase(StrEnum):
    """Where the whole stack is."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class ChildPhase(StrEnum):
    """Where one child is."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    """Died; starts again after a delay."""
    STOPPED = "stopped"


class ChildState(msgspec.Struct, kw_only=True):
    """One child process, in the order of start."""

    name: str
    phase: ChildPhase = ChildPhase.STARTING
    process: ProcessId | None = None
    port: int | None = None
    restarts: int = 0
    note: str | None = None
    """How it ended last."""
    stop: tuple[StopStep, ...] = ()


class Step(msgspec.Struct):
    """One line of the progress display."""

    name: str
    text: str
    done: bool = False
    failed: bool = False
    """It was broken off."""
    seconds: float = 0.0


class StackState(msgspec.Struct, kw_only=True):
    """The state file: who supervises what."""

    supervisor: ProcessId
    folder: str | None = None
    """The home that it was written for, by `folder_id`: it says nothing of a copy's processes."""
    url: str
    redis_url: str
    database_url: str
    phase: Phase = Phase.STARTING
    children: list[ChildState] = []
    steps: list[Step] = []
    notes: list[str] = []
    """Lines that the user should read once the stack is up."""
    problems: list[str] = []
    """One line for each deployment that failed."""

    @property
    def stops(self) -> list[Step]:
        """Those of the steps that stop a child."""
        return [step for step in self.steps if step.name.startswith(STOP)]


def read(path: Path) -> StackState | None:
    """The state that a supervisor of this home wrote; None if there is none to be understood.

    A state that cannot be understood was written by another version: its processes are
    still found by their mark and by the pid files of the servers.

    Raises:
        StackError: it may not be read.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=StackState)
        return found if found.folder in (None, folder_id(path.parent)) else None
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        return None
    except OSError as error:
        raise StackError(f"cannot read {path} ({error.strerror}): is it another user's?") from None


def write(path: Path, state: StackState) -> None:
    """Replaces the state file in one step."""
    write_private(path, msgspec.json.format(msgspec.json.encode(state)))
