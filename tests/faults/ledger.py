"""What clients were promised, held against what the system did: invariants I1 to I6."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg
import redis

from inferstack.client import AsyncClient, ClientError, Retries, Submission, Task
from inferstack.task import TERMINAL, Priority

DRAIN = 60.0
"""Seconds in which everything must be finished and archived once faults have stopped (I6)."""
NAME = "echo:1"


@dataclass
class Ledger:
    """The submits of one test. Every payload is unique, so nothing can pass for another."""

    submitted: set[str] = field(default_factory=set)
    accepted: dict[str, str] = field(default_factory=dict)
    """task id -> payload, for each submit that was answered."""
    seen: dict[str, Task] = field(default_factory=dict)
    """Terminal states that a client has seen; they must never change (I2)."""
    refused: list[str] = field(default_factory=list)

    async def load(self, url: str, *, tasks: int, sleep_ms: float, seed: int) -> None:
        """Submits tasks from 16 clients at once, half of which wait for their results."""
        rng = random.Random(seed)
        jobs = [(uuid4().hex, rng.choice(list(Priority)), rng.random() < 0.5) for _ in range(tasks)]
        queue = iter(jobs)
        async with AsyncClient(url, retries=Retries(attempts=30, cap=1.0)) as client:

            async def work() -> None:
                for payload, priority, waits in queue:
                    await self._one(client, payload, priority, sleep_ms, waits=waits)

            await asyncio.gather(*(work() for _ in range(16)))

    async def _one(
        self, client: AsyncClient, payload: str, priority: Priority, sleep_ms: float, *, waits: bool
    ) -> None:
        self.submitted.add(payload)
        data: dict[str, Any] = {"payload": payload, "sleep_ms": sleep_ms}
        submission = Submission(data=data, model="echo", priority=priority, timeout=600.0)
        try:
            receipt = await client.submit(**_fields(submission))
            self.accepted[receipt.task_id] = payload
            if waits:
                self.see(await client.wait(receipt.task_id, timeout=DRAIN))
        except ClientError as error:
            self.refused.append(str(error))

    def see(self, task: Task) -> None:
        """Notes a terminal state; a second look must show the same."""
        if task.status in TERMINAL:
            known = self.seen.setdefault(task.task_id, task)
            assert (known.status, known.result, known.error) == (
                task.status,
                task.result,
                task.error,
            ), f"I2: {task.task_id} changed"

    async def check(self, url: str, redis_url: str, database_url: str) -> None:
        """Waits until all is finished, then checks I1, I2, I3, I5 and I6."""
        started = time.monotonic()
        async with AsyncClient(url, retries=Retries(attempts=30, cap=1.0)) as client:
            for task_id, payload in self.accepted.items():
                left = DRAIN - (time.monotonic() - started)
                task = await client.wait(task_id, timeout=max(left, 1.0))
                self.see(task)
                assert task.status == "completed", f"I1: {task_id} is {task.status}: {task.error}"
                assert task.result["payload"] == payload, f"I2: {task_id} has another's result"
        self._check_archive(database_url, started)
        _check_queue(redis_url, started)

    def _check_archive(self, database_url: str, started: float) -> None:
        with psycopg.connect(database_url) as connection:
            while True:
                rows = connection.execute(
                    "SELECT id::text, state, input->>'payload', result->>'payload' FROM tasks"
                    " WHERE input->>'payload' = ANY(%s)",
                    (list(self.submitted),),
                ).fetchall()
                connection.rollback()
                missing = self.accepted.keys() - {r[0] for r in rows if r[1] == "completed"}
                if not missing:
                    break
                assert time.monotonic() - started < DRAIN, f"I6: not archived: {missing}"
                time.sleep(0.1)
        for task_id, status, payload, result in rows:
            assert status == "completed", f"I1: {task_id} is {status} in history"
            assert payload == result, f"I2: {task_id} has another's result in history"
        payloads = [row[2] for row in rows]
        assert len(payloads) == len(set(payloads)), "I3: a submit made two tasks"


def _fields(submission: Submission) -> dict[str, Any]:
    return {name: getattr(submission, name) for name in ("data", "model", "priority", "timeout")}


def _check_queue(redis_url: str, started: float) -> None:
    """I5: nothing is left in any index or counter."""
    with redis.Redis.from_url(redis_url) as client:
        start = f"is:{{{NAME}}}:"
        sets = ["w:high", "w:normal", "w:low", "delay", "lease", "deadline"]
        while True:
            left = {name: client.zcard(start + name) for name in sets}
            left["out"] = client.xlen(start + "out")
            left["outbox"] = int(client.hget(start + "meta", "outbox") or 0)
            left["tenants"] = client.hlen(start + "tenants")
            if not any(left.values()):
                return
            assert time.monotonic() - started < DRAIN, f"I5: left over: {left}"
            time.sleep(0.1)
