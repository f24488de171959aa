"""What a simulated world has done and seen, held against what Redis and history say: I1 to I6."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.queue.connection import Redis, connect
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Completion
from inferstack.task import Priority, Task, TaskState
from tests.faults.tally import Tally

NAME = "echo:1"
PREFIX = f"is:{{{NAME}}}:"
TENANTS = ("a", "b", "c")


@dataclass
class Intent:
    """One thing that a client wants done, however often it has to ask."""

    payload: str
    key: str | None
    tenant: str
    priority: Priority
    timeout: float | None
    fails: bool
    """Whether every attempt fails."""
    asked: set[str] = field(default_factory=set)
    """Ids under which it was submitted."""
    accepted: str | None = None
    cancelled: bool = False


@dataclass
class World:
    """The clients' memory, the replicas' memory, and history in place of PostgreSQL."""

    settings: Settings
    rng: random.Random
    tally: Tally = field(default_factory=Tally)
    faults: bool = True
    """Whether something may go wrong now."""
    open: bool = True
    """Whether clients submit."""
    intents: dict[str, Intent] = field(default_factory=dict)
    seen: dict[str, tuple[object, ...]] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    """The newest attempt that a replica knows of."""
    completed: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Attempts that were told that they completed their task."""
    begun: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Attempts that began and have not ended: each may count as a crash."""
    history: dict[str, Task] = field(default_factory=dict)
    clients: list[Redis] = field(default_factory=list)
    """Of all lives: a late request connects again when the life it was sent in is over."""
    late: set[asyncio.Task[None]] = field(default_factory=set)
    """Requests that their senders have given up."""

    async def close(self) -> None:
        """Leaves no connection behind."""
        for task in tuple(self.late):
            await end(task)
        for redis in self.clients:
            await redis.connection_pool.disconnect(inuse_connections=True)

    # What happens.

    def intend(self) -> Intent:
        """Something new, or now and then something that was asked before, with its key."""
        rng = self.rng
        repeatable = [intent for intent in self.intents.values() if intent.key]
        if repeatable and rng.random() < 0.15:
            return rng.choice(repeatable)
        number = len(self.intents)
        intent = Intent(
            payload=f"p{number}",
            key=f"k{number}" if rng.random() < 0.5 else None,
            tenant=rng.choice(TENANTS),
            priority=rng.choice(list(Priority)),
            timeout=rng.uniform(0.05, 0.5) if rng.random() < 0.08 else None,
            fails=rng.random() < 0.05,
        )
        self.intents[intent.payload] = intent
        return intent

    def accept(self, intent: Intent, task_id: str) -> None:
        """A client was told that this task does what it wants."""
        if intent.accepted is None:
            intent.accepted = task_id
            self.tally.accepted += 1
        elif intent.accepted != task_id:
            self.double(f"I3: {intent.payload} is {intent.accepted} and {task_id}")

    def complete(self, done: Completion, newest: int, *, again: bool) -> None:
        """A replica was told that its attempt completed a task, when `newest` had been claimed."""
        task_id, attempt = done.task_id, done.attempt
        if attempt in self.completed[task_id] and not again:
            self.double(
                f"I4: {task_id} was completed by attempt {attempt}, and then as if for once"
            )
        self.completed[task_id].add(attempt)
        self.begun[task_id].discard(attempt)
        if attempt < newest:
            self.double(f"I4: {task_id}: attempt {attempt} completed it after {newest} was claimed")
        if len(self.completed[task_id]) > 1:
            self.double(f"I4: {task_id} was completed by attempts {self.completed[task_id]}")

    def see(self, task: Task, where: str) -> None:
        """Somebody reads a task; once terminal it must never change."""
        if not task.state.terminal:
            return
        shown = (task.state, task.result and bytes(task.result), task.error)
        known = self.seen.setdefault(task.spec.task_id, shown)
        if known != shown:
            self.double(f"I2: {task.spec.task_id} was {known} and is {shown} in {where}")

    def double(self, what: str) -> None:
        """Something happened twice that must happen once."""
        self.tally.doubled += 1
        self.tally.violations.append(what)

    def lose(self, what: str) -> None:
        """Something is not there that must be."""
        self.tally.lost += 1
        self.tally.violations.append(what)

    # History.

    def store(self, tasks: Sequence[Task]) -> set[str]:
        """What the recorder's statement does, but that it takes a second end: to be told of it."""
        new: set[str] = set()
        for task in tasks:
            known = self.history.get(task.spec.task_id)
            if known is None or known.version < task.version:
                self.history[task.spec.task_id] = task
                new.add(task.spec.task_id)
            elif known.version == task.version and known.state.terminal:
                self.see(task, "Redis")
            self.see(self.history[task.spec.task_id], "history")
        return new

    # The end.

    async def settle(self, seconds: float) -> None:
        """Waits until nothing is left to do, then checks everything."""
        redis = connect(str(self.settings.redis_url))
        try:
            left: dict[str, Any] = {"everything": True}
            deadline = asyncio.get_running_loop().time() + seconds
            while left and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(0.05)
                left = await _left(redis)
            if left:
                self.tally.violations.append(f"I5, I6: left after {seconds} s: {left}")
            await self._check(TaskQueue(redis, NAME, self.settings))
        finally:
            await redis.aclose()

    async def _check(self, queue: TaskQueue) -> None:
        by_payload: dict[str, list[Task]] = defaultdict(list)
        for task in self.history.values():
            by_payload[msgspec.json.decode(task.spec.data)["payload"]].append(task)
        for payload in by_payload.keys() - self.intents.keys():
            self.double(f"I3: nobody asked for {payload}")
        for intent in self.intents.values():
            tasks = by_payload[intent.payload]
            if len(tasks) > 1:
                self.double(f"I3: {intent.payload} is {[task.spec.task_id for task in tasks]}")
            if intent.accepted is not None and intent.accepted not in self.history:
                live = await queue.get(intent.accepted)
                self.lose(f"I1: {intent.accepted} is not in history, in Redis it is {live}")
            for task in tasks:
                self._check_task(intent, task)

    def _check_task(self, intent: Intent, task: Task) -> None:
        task_id, state = task.spec.task_id, task.state
        if task_id not in intent.asked:
            self.double(f"I3: {task_id} was never submitted")
        if not state.terminal:
            self.lose(f"I1: {task_id} is {state} in history")
        elif state is TaskState.COMPLETED:
            self._check_result(intent, task)
        elif not self._may_be(intent, task):
            self.tally.violations.append(f"I1: {task_id} is {state}, {task.error}: why?")

    def _check_result(self, intent: Intent, task: Task) -> None:
        result = msgspec.json.decode(task.result) if task.result is not None else {}
        if result.get("payload") != intent.payload:
            self.tally.violations.append(f"I2: {task.spec.task_id} has the result {result}")
        attempts = self.completed[task.spec.task_id]
        # The answer to the only completion may have been lost with its replica.
        if attempts and result.get("attempt") not in attempts:
            self.double(f"I4: {task.spec.task_id} has the result of {result}, completed {attempts}")

    def _may_be(self, intent: Intent, task: Task) -> bool:
        """Whether a task has a reason not to be completed."""
        if task.state is TaskState.CANCELLED:
            return intent.cancelled
        if task.state is TaskState.EXPIRED:
            return intent.timeout is not None
        assert task.error is not None
        if task.error.type == "replica-crashed":
            return len(self.begun[task.spec.task_id]) >= self.settings.max_crashes
        return intent.fails


async def _left(redis: Any) -> dict[str, int]:
    """Whatever is in an index or a counter; nothing once all is done and archived."""
    sets = ["w:high", "w:normal", "w:low", "delay", "lease", "deadline"]
    left = {name: await redis.zcard(PREFIX + name) for name in sets}
    left["out"] = await redis.xlen(PREFIX + "out")
    left["tenants"] = await redis.hlen(PREFIX + "tenants")
    left["tags"] = await redis.hlen(PREFIX + "tags")
    left["tasks"] = len(await redis.keys(PREFIX.replace("{", "[{]").replace("}", "[}]") + "t:*"))
    left["outbox"] = int(await redis.hget(PREFIX + "meta", "outbox") or 0)
    return {name: count for name, count in left.items() if count}
