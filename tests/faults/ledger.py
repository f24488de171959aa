"""What clients were promised, held against what the system did: invariants I1 to I6."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import redis

from inferstack.client import AsyncClient, ClientError, Retries, Task
from inferstack.task import TERMINAL, Priority, TaskState
from tests.faults.tally import Tally, count

DRAIN = 60.0
"""Seconds in which everything must be finished and archived once faults have stopped (I6)."""
PATIENT = Retries(attempts=1000, cap=1.0, budget=150.0)
"""Until the limit of the test: a slow machine starts the whole stack anew meanwhile."""
CHECKERS = 8
"""Requests at once of a ledger that is checked: one by one, ten thousand tasks take minutes."""
LARGE = 8192
"""Bytes of a body that goes to the object store of a `Cluster`."""


@dataclass
class Ledger:
    """The submits of one test. Every payload is unique, so nothing can pass for another."""

    model: str = "echo"
    objects: Path | None = None
    """The folder of the object store, if large bodies go there."""
    submitted: dict[str, TaskState] = field(default_factory=dict)
    """payload -> how it has to end."""
    accepted: dict[str, str] = field(default_factory=dict)
    """task id -> payload, for each submit that was answered."""
    seen: dict[str, Task] = field(default_factory=dict)
    """Terminal states that a client has seen; they must never change (I2)."""
    refused: list[ClientError] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    async def load(self, url: str, *, tasks: int, sleep_ms: float, seed: int) -> None:
        """Submits tasks from 16 clients at once, half of which wait for their results."""
        rng = random.Random(seed)
        jobs = iter([(rng.choice(list(Priority)), rng.random() < 0.5) for _ in range(tasks)])
        large = [LARGE if self.objects and rng.random() < 0.1 else 0 for _ in range(tasks)]

        async def work(client: AsyncClient) -> None:
            for priority, waits in jobs:
                data: dict[str, Any] = {"sleep_ms": sleep_ms}
                if more := large.pop():
                    data["more"] = more
                task_id = await self.submit(client, priority, **data)
                if waits and task_id is not None:
                    self.see(await client.wait(task_id, timeout=DRAIN))

        async with AsyncClient(url, retries=PATIENT) as client:
            await asyncio.gather(*(work(client) for _ in range(16)))

    async def submit(
        self,
        client: AsyncClient,
        priority: Priority = Priority.NORMAL,
        ends: TaskState = TaskState.COMPLETED,
        **data: Any,
    ) -> str | None:
        """Submits one; returns its task id, None if it was refused for good.

        Args:
            client: repeats by itself, under one key.
            priority: of the task.
            ends: how it has to end.
            data: the rest of its input.
        """
        payload = uuid4().hex
        self.submitted[payload] = ends
        try:
            receipt = await client.submit(
                data={"payload": payload, **data},
                model=self.model,
                priority=priority,
                timeout=600.0,
            )
        except ClientError as error:
            self.refused.append(error)
            return None
        self.accepted[receipt.task_id] = payload
        return receipt.task_id

    def see(self, task: Task) -> None:
        """Notes a terminal state; a second look must show the same."""
        if task.status in TERMINAL:
            known = self.seen.setdefault(task.task_id, task)
            if (known.status, known.result, known.error) != (task.status, task.result, task.error):
                self._wrong(f"I2: {task.task_id} changed", doubled=1)

    async def check(self, url: str, redis_url: str, database_url: str) -> None:
        """Waits until all is finished, then checks I1, I2, I3, I5 and I6, and counts."""
        started = time.monotonic()
        self.tally.accepted += len(self.accepted)
        unchecked = iter(self.accepted.items())
        async with AsyncClient(url, retries=PATIENT) as client:
            await asyncio.gather(
                *(self._check_tasks(client, unchecked, started) for _ in range(CHECKERS))
            )
        # Elsewhere: whoever restarts what died may share this loop.
        await asyncio.to_thread(self._check_archive, database_url, started)
        await asyncio.to_thread(self._check_queue, redis_url, started)
        count("stack", self.tally)
        assert not self.tally.violations, "\n".join(self.tally.violations[:20])

    async def _check_tasks(
        self, client: AsyncClient, unchecked: Iterator[tuple[str, str]], started: float
    ) -> None:
        for task_id, payload in unchecked:
            left = DRAIN - (time.monotonic() - started)
            try:
                task = await client.wait(task_id, timeout=max(left, 1.0))
            except ClientError as error:
                self._wrong(f"I1: {task_id}: {error}", lost=1)
                continue
            self.see(task)
            self._check_end(task_id, payload, task.status, task.error, task.result)

    def _wrong(self, what: str, *, lost: int = 0, doubled: int = 0) -> None:
        self.tally.violations.append(what)
        self.tally.lost += lost
        self.tally.doubled += doubled

    def _check_end(
        self, task_id: str, payload: str, state: str, error: Any, result: Any, where: str = ""
    ) -> None:
        if state != self.submitted[payload]:
            self._wrong(f"I1: {task_id} is {state}{where}: {error}", lost=1)
        elif state == TaskState.COMPLETED and result.get("payload") != payload:
            self._wrong(f"I2: {task_id} has another's result{where}", doubled=1)

    def _check_archive(self, database_url: str, started: float) -> None:
        while True:
            rows = self._history(database_url)
            missing = self.accepted.keys() - {row[0] for row in rows if row[1] in TERMINAL}
            if not missing or time.monotonic() - started > DRAIN:
                break
            time.sleep(0.1)
        for task_id in missing:
            self._wrong(f"I6: {task_id} is not archived", lost=1)
        for task_id, state, key, error, result, *refs in rows:
            # A large input lies in the object store.
            payload = key or self.accepted[task_id]
            if task_id not in self.accepted or state in TERMINAL:
                found = {"payload": payload} if result is None else result
                self._check_end(task_id, payload, state, error, found, " in history")
            self._check_objects(task_id, refs)
        tasks = Counter(row[2] or self.accepted[row[0]] for row in rows)
        for payload in (payload for payload, times in tasks.items() if times > 1):
            self._wrong(f"I3: {payload} is more than one task", doubled=1)

    def _history(self, database_url: str) -> list[tuple[Any, ...]]:
        """What is archived of this test; nothing while PostgreSQL recovers."""
        try:
            with psycopg.connect(database_url, connect_timeout=5) as connection:
                return connection.execute(
                    "SELECT id::text, state, key, error, result, input_ref, result_ref"
                    " FROM tasks, LATERAL (SELECT input->>'payload' AS key) AS named"
                    " WHERE key = ANY(%s) OR id = ANY(%s::uuid[])",
                    (list(self.submitted), list(self.accepted)),
                ).fetchall()
        except psycopg.OperationalError:
            return []

    def _check_objects(self, task_id: str, refs: list[str | None]) -> None:
        for ref in filter(None, refs):
            if self.objects is not None and not (self.objects / ref).exists():
                self._wrong(f"I2: {task_id} refers to {ref}, which does not exist", lost=1)

    def _check_queue(self, redis_url: str, started: float) -> None:
        """I5: nothing is left in any index or counter."""
        with redis.Redis.from_url(redis_url) as client:
            start = f"is:{{{self.model}:1}}:"
            sets = ["w:high", "w:normal", "w:low", "delay", "lease", "deadline"]
            while True:
                left = {name: client.zcard(start + name) for name in sets}
                left["out"] = client.xlen(start + "out")
                left["outbox"] = int(client.hget(start + "meta", "outbox") or 0)
                left["tenants"] = client.hlen(start + "tenants")
                if not any(left.values()):
                    return
                if time.monotonic() - started > DRAIN:
                    self._wrong(f"I5: left over: {left}")
                    return
                time.sleep(0.1)
