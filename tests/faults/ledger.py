"""The clients of a test, and the audit in its end: invariants I1 to I6."""

import asyncio
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from inferstack.client import AsyncClient, ClientError, Retries
from inferstack.task import Priority, TaskState
from tests.faults.audit import Row, audit
from tests.faults.promises import Promises
from tests.faults.tally import count

DRAIN = 60.0
"""Seconds in which everything must be finished and archived once faults have stopped (I6)."""
GRACE = 10.0
"""The same once a task is lost already: that test has failed, and has a time limit."""
PATIENT = Retries(attempts=1000, cap=1.0, budget=150.0)
"""Until the limit of the test: a slow machine starts the whole stack anew meanwhile."""
CHECKERS = 8
"""Requests at once of a ledger that is checked: one by one, ten thousand tasks take minutes."""
ASKED, AGAIN = 200, 20
"""How many tasks the API is asked for in the end, of those that nobody saw end and of the others.
All of them are looked up in the stores behind it."""
LARGE = 8192
"""Bytes of a body that goes to the object store of a `Cluster`."""


@dataclass
class Ledger(Promises):
    """What clients submit and see; `check` is the end of a test."""

    refused: list[ClientError] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    """What is archived, by task id; once it is checked."""

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
                    await self.follow(client, task_id, DRAIN)

        async with AsyncClient(url, retries=PATIENT) as client:
            await asyncio.gather(*(work(client) for _ in range(16)))

    async def submit(
        self, client: AsyncClient, priority: Priority = Priority.NORMAL, **data: Any
    ) -> str | None:
        """Submits one; returns its task id, None if it was refused for good.

        Args:
            client: repeats by itself, under one key.
            priority: of the task.
            data: its input, but for the payload.
        """
        wanted = self.intend(**data)
        try:
            receipt = await client.submit(
                data=wanted, model=self.model, priority=priority, timeout=600.0
            )
        except ClientError as error:
            self.refused.append(error)
            return None
        self.accept(receipt.task_id, wanted["payload"])
        return receipt.task_id

    async def follow(self, client: AsyncClient, task_id: str, seconds: float) -> None:
        """Waits for the end of a task; without one it is lost."""
        try:
            self.see(await client.wait(task_id, timeout=seconds))
        except ClientError as error:
            self.wrong(f"I1: {task_id}: {error}", lost=task_id)

    async def check(
        self, url: str, redis_url: str, database_url: str, *, asked: int = ASKED
    ) -> None:
        """Waits until all is finished, then checks I1 to I6, and counts.

        Args:
            url: of the API, which is asked as the anonymous caller.
            redis_url: of the queue.
            database_url: of history.
            asked: for how many tasks that nobody has seen end; 0 if they are other tenants'.
        """
        # What a client has waited for in vain does not come; the others may still be under way.
        until = time.monotonic() + (GRACE if self.lost else DRAIN)
        self.tally.accepted += len(self.accepted)
        async with AsyncClient(url, retries=PATIENT) as client:
            again = list(self.seen)[:AGAIN] if asked else []
            unasked = iter(self._unseen(asked) + again)
            await asyncio.gather(*(self._ask(client, unasked, until) for _ in range(CHECKERS)))
            # Elsewhere: whoever restarts what died may share this loop.
            rows = await asyncio.to_thread(audit, self, redis_url, database_url, until)
            self.rows = {row.task_id: row for row in rows}
            await self._check_dead_letters(client)
        count("stack", self.tally)
        assert not self.tally.violations, "\n".join(self.tally.violations[:20])

    def _unseen(self, most: int) -> list[str]:
        """Evenly from first to last."""
        unseen = [task_id for task_id in self.accepted if task_id not in self.seen]
        return unseen[:: math.ceil(len(unseen) / most)] if most and unseen else []

    async def _ask(self, client: AsyncClient, unasked: Iterator[str], until: float) -> None:
        for task_id in unasked:
            await self.follow(client, task_id, max(until - time.monotonic(), 1.0))

    async def _check_dead_letters(self, client: AsyncClient) -> None:
        """What has failed is on the list, and nothing else."""
        since = datetime.fromtimestamp(self.began, UTC)
        page = await client.dead_letters(model=self.model, since=since, limit=200)
        listed = {letter.task_id for letter in page.dead_letters}
        failed = {task_id for task_id, row in self.rows.items() if row.state == TaskState.FAILED}
        for task_id in listed ^ failed:
            where = "among the dead letters" if task_id in listed else "in history"
            self.wrong(f"I2: {task_id} has failed only {where}")
