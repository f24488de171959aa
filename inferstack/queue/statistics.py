"""What the queues look like now, sampled for metrics, estimates and admission."""

from typing import Any

import msgspec
from redis.asyncio import Redis

from inferstack.deployment import Circuit, ReplicaStatus
from inferstack.queue.connection import translated
from inferstack.queue.task_queue import prefix
from inferstack.task import Priority

_replica = msgspec.json.Decoder(ReplicaStatus)


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment's queue at one moment."""

    waiting: dict[str, int]
    """Tasks by priority."""
    delayed: int
    running: int
    outbox: int
    """Changes not archived yet."""
    completed: int
    """Since the queue exists; so are the next two."""
    failed: int
    expired: int
    circuit: Circuit = Circuit.CLOSED
    opened: int = 0
    """How often the circuit opened since the queue exists."""
    replicas: list[ReplicaStatus]
    at: float = 0.0
    """When this was, in seconds since the epoch by the clock of Redis."""

    @property
    def depth(self) -> int:
        """Tasks that wait for a replica."""
        return sum(self.waiting.values())

    @property
    def capacity(self) -> float:
        """Tasks per second that the live replicas can do together; 0 if unknown."""
        return sum(replica.capacity for replica in self.replicas)


async def sample(redis: "Redis", deployments: list[str]) -> dict[str, QueueStatistics]:
    """Reads the statistics of some deployments in one round trip."""
    with translated():
        pipe = redis.pipeline(transaction=False)
        for name in deployments:
            start = prefix(name)
            for priority in Priority:
                pipe.zcard(f"{start}w:{priority}")
            pipe.zcard(f"{start}delay")
            pipe.zcard(f"{start}lease")
            pipe.hgetall(f"{start}meta")
            pipe.hvals(f"{start}status")
            pipe.hget(f"{start}breaker", "until")
        pipe.time()
        *rows, (seconds, micros) = await pipe.execute()
    width = len(Priority) + 5
    now = seconds + micros / 1_000_000
    return {
        name: _statistics(rows[i * width : (i + 1) * width], now)
        for i, name in enumerate(deployments)
    }


def _statistics(row: list[Any], now: float) -> QueueStatistics:
    *counts, meta, replicas, until = row
    assert isinstance(meta, dict)
    assert isinstance(replicas, list)
    numbers = [int(str(count)) for count in counts]
    return QueueStatistics(
        waiting=dict(zip((p.value for p in Priority), numbers, strict=False)),
        delayed=numbers[-2],
        running=numbers[-1],
        outbox=int(meta.get(b"outbox", 0)),
        completed=int(meta.get(b"done", 0)),
        failed=int(meta.get(b"failed", 0)),
        expired=int(meta.get(b"expired", 0)),
        circuit=_circuit(until, now * 1000),
        opened=int(meta.get(b"opened", 0)),
        replicas=[_replica.decode(status) for status in replicas],
        at=now,
    )


def _circuit(until: bytes | None, now_ms: float) -> Circuit:
    if until is None:
        return Circuit.CLOSED
    return Circuit.OPEN if now_ms < int(until) else Circuit.HALF_OPEN
