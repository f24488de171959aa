"""What to run, how to tell that it is ready, and how to stop it."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from inferstack.local.processes import StopStep

PLAIN_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""For the servers: nothing of the caller's, where PGDATA or PGPORT would change what they do."""


@dataclass(frozen=True)
class Account:
    """The user that a program runs as."""

    name: str
    uid: int
    gid: int


class RunAs(TypedDict, total=False):
    """The arguments by which `subprocess` runs a program as another user."""

    user: int
    group: int
    extra_groups: list[int]


def run_as(account: Account | None) -> RunAs:
    """How to start a program as an account; None for the user of this process."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


@dataclass(frozen=True)
class Program:
    """One program of the stack."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    """Asked again and again until it is true; must not take longer than a second or two."""
    ready_within: float = 60.0
    """Seconds from the start until it must be ready."""
    stop: tuple[StopStep, ...] = field(default=((signal.SIGTERM, 30.0),))
    """Signals that ask it to end, each with seconds to wait; SIGKILL follows."""
    account: Account | None = None
    """None for the user of this process."""
    port: int | None = None
