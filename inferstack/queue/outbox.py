"""What changed and is not archived yet, oldest first.

No consumer group: delivering an entry to one writes an XCLAIM into the append-only file, and
its pending list has to be kept. Entries are deleted once archived, so the oldest is always
the first, and archiving is an upsert guarded by the state version, so a change that two
recorders see does no harm.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from inferstack.config import Settings
from inferstack.queue import scripts
from inferstack.queue.arguments import flat, slices
from inferstack.queue.codec import pack
from inferstack.queue.connection import translated
from inferstack.queue.task_queue import TaskQueue, prefix
from inferstack.task import Task


class OutboxEntry(NamedTuple):
    """One change of one task. Changes made by one script call share an `entry_id`."""

    deployment: str
    entry_id: bytes
    task_id: str
    version: int


class Outbox:
    """The outboxes of some deployments."""

    def __init__(self, redis: "Redis", deployments: Iterable[str], settings: Settings) -> None:
        """Args: redis: a client that may block; deployments: `model:version` names."""
        self._redis = redis
        self._settings = settings
        self._keep_ms = int(settings.archived_ttl * 1000)
        self.follow(deployments)

    def follow(self, deployments: Iterable[str]) -> None:
        """From now on reads the outboxes of these."""
        self._streams = {f"{prefix(name)}out".encode(): name for name in sorted(deployments)}

    async def read(self, limit: int, block_ms: int | None = None) -> list[OutboxEntry]:
        """The oldest changes; nothing if none comes within `block_ms`, or there is no deployment.

        Args:
            limit: stream entries a deployment; each tells of up to a few hundred changes.
            block_ms: how long to wait for the first, below the client's socket timeout; None
                does not wait. Redis ends such a wait up to 100 ms late.
        """
        if not self._streams:
            await asyncio.sleep((block_ms or 0) / 1000)
            return []
        with translated():
            reply: Any = await self._redis.xread(
                dict.fromkeys(self._streams, "0-0"), count=limit, block=block_ms
            )
        found: list[OutboxEntry] = []
        for stream, rows in reply or []:
            name = self._streams[stream]
            for entry_id, fields in rows:
                words = fields[b"c"].decode().split(" ")
                pairs = zip(words[::2], words[1::2], strict=True)
                found += [OutboxEntry(name, entry_id, task_id, int(v)) for task_id, v in pairs]
        return found

    async def load(self, entries: Sequence[OutboxEntry]) -> list[Task | None]:
        """The current state of each entry's task; None for one that Redis no longer has."""
        places: dict[str, list[int]] = {}
        for place, entry in enumerate(entries):
            places.setdefault(entry.deployment, []).append(place)
        found: list[Task | None] = [None] * len(entries)
        for name, wanted in places.items():
            queue = TaskQueue(self._redis, name, self._settings)
            tasks = await queue.load([entries[place].task_id for place in wanted])
            for place, task in zip(wanted, tasks, strict=True):
                found[place] = task
        return found

    async def archived(
        self, deployment: str, entries: Sequence[OutboxEntry], finished: Sequence[str]
    ) -> None:
        """Forgets archived changes, and soon the finished tasks that PostgreSQL holds.

        Args:
            deployment: whose changes these are.
            entries: every change of every stream entry that is to go.
            finished: ids of tasks whose terminal state is archived.
        """
        sizes = Counter(entry.entry_id for entry in entries)
        gone = [(entry_id.decode(), size) for entry_id, size in sizes.items()]
        *first, last = [*slices(finished)] or [()]
        with translated():
            # Entries go last: until then the same changes come again after an error.
            for chunk in first:
                await self._archive(deployment, [], chunk)
            await self._archive(deployment, gone, last)

    async def _archive(
        self, deployment: str, entries: Sequence[tuple[str, int]], finished: Sequence[str]
    ) -> None:
        args = (self._keep_ms, pack(flat(entries)), pack(finished))
        await scripts.run(self._redis, "archive", prefix(deployment), args)
