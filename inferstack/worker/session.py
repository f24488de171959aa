"""What a worker needs of the queue; `lifecycle.replica.ReplicaSession` is the real one."""

from collections.abc import Callable, Sequence
from typing import Protocol

from inferstack.deployment import ReplicaStatus
from inferstack.lifecycle.replica import Lease
from inferstack.task import Execution, TaskError


class Session(Protocol):
    """See `ReplicaSession` for what each method promises."""

    worker: str
    stale: int
    """Results refused so far because another attempt holds the task."""
    inline_limit: int
    """Bytes of a result beyond which it goes through the object store, which takes longer."""
    retried: int
    """Failed attempts so far that get another."""
    reaped: int
    """Tasks taken back so far from replicas that fell silent, and not failed for that."""

    async def claim(self, limit: int) -> list[Lease]:
        """Leases up to `limit` tasks; never blocks."""

    async def wait(self, seconds: float, /) -> None:
        """Returns when there may be work, or after some seconds."""

    async def listen(self, drop: Callable[[str], object], /) -> None:
        """Calls `drop` with the id of each task that nobody wants any more; for ever."""

    async def begin(self, leases: Sequence[Lease]) -> None:
        """Notes which tasks compute from now on."""

    async def complete(self, done: Sequence[tuple[Lease, bytes, Execution]]) -> None:
        """Stores results, each JSON. May be called again while large ones are under way."""

    async def fail(self, failed: Sequence[tuple[Lease, TaskError, Execution]]) -> None:
        """Ends failed attempts."""

    async def release(self, leases: Sequence[Lease]) -> None:
        """Gives tasks back; no attempt is charged."""

    async def extend(self, leases: Sequence[Lease]) -> set[str]:
        """Prolongs leases; returns the ids that are lost."""

    async def heartbeat(self, status: ReplicaStatus) -> None:
        """Says that the replica lives."""

    async def leave(self) -> None:
        """Takes the replica off the live ones."""
