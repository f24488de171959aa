"""The queue as it should be: a pure model, one object a task, no Redis."""

import math
from dataclasses import dataclass, field

LANES = ("high", "normal", "low")
SHARES = {"high": 1.0, "normal": 0.95, "low": 0.8}
TERMINAL = {"completed", "failed", "cancelled", "expired"}
MOVED = ("moved", "")
"""In place of the holder of an idempotency key: another deployment takes its tasks."""


@dataclass
class ModelTask:
    """One task; `where` is the index that holds it: a lane, `delay`, `lease` or nothing."""

    task_id: str
    lane: str
    tenant: str
    tag: float
    state: str = "queued"
    where: str = ""
    attempt: int = 0
    uncharged: int = 0
    failures: int = 0
    crashes: int = 0
    version: int = 1
    worker: str = ""
    result: bytes | None = None
    expires: bool = True


@dataclass
class ModelQueue:
    """Predicts what every script answers and leaves behind."""

    max_attempts: int
    max_crashes: int
    max_queue: int
    max_tenant: int
    tasks: dict[str, ModelTask] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Tenant and key -> the task that holds it and the fingerprint of its body, or MOVED."""
    routes: set[tuple[str, str]] = field(default_factory=set)
    """Keys that a task was accepted for: from then on they lead here."""
    virtual: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LANES, 0.0))
    tags: dict[tuple[str, str], float] = field(default_factory=dict)
    claims: int = 0
    live: set[str] = field(default_factory=set)
    began: dict[str, set[tuple[str, int]]] = field(default_factory=dict)

    def waiting(self, lane: str) -> list[ModelTask]:
        """Tasks of a lane in the order they are served."""
        held = [task for task in self.tasks.values() if task.where == lane]
        return sorted(held, key=lambda task: (task.tag, task.task_id))

    def unfinished(self, tenant: str) -> int:
        """Tasks of a tenant that are not terminal."""
        return sum(t.tenant == tenant and t.state not in TERMINAL for t in self.tasks.values())

    def enqueue(
        self,
        task_id: str,
        lane: str,
        tenant: str,
        cost: float,
        key: str,
        body: str,
        expires: bool,
    ) -> tuple[str, str, int]:
        """Status, id and how many are ahead."""
        if task_id in self.tasks:
            return "dup", task_id, 0
        if key and (tenant, key) in self.keys:
            return *self._met(task_id, self.keys[tenant, key], body), 0
        if sum(len(self.waiting(each)) for each in LANES) >= math.ceil(
            self.max_queue * SHARES[lane]
        ):
            return "full", task_id, 0
        if self.unfinished(tenant) >= self.max_tenant:
            return "tenant-full", task_id, 0
        if key:
            self.keys[tenant, key] = task_id, body
            self.routes.add((tenant, key))
        tag = max(self.virtual[lane], self.tags.get((lane, tenant), 0.0)) + 1000 * cost
        self.tags[lane, tenant] = tag
        higher = LANES[: LANES.index(lane) + 1]
        ahead = sum(len(self.waiting(each)) for each in higher)
        self.tasks[task_id] = ModelTask(task_id, lane, tenant, tag, where=lane, expires=expires)
        return "ok", task_id, ahead

    def turn_away(
        self, task_id: str, tenant: str, key: str, body: str, *, gives_up: bool
    ) -> tuple[str, str]:
        """Status and id of a new task that is not taken, unless its key leads to another one."""
        if gives_up:
            self.keys.setdefault((tenant, key), MOVED)
        return self._met(task_id, self.keys.get((tenant, key), MOVED), body)

    def _met(self, task_id: str, held: tuple[str, str], body: str) -> tuple[str, str]:
        """Status and id of a submit that meets a key that is held."""
        if held == MOVED:
            return "open", task_id
        holder, known = held
        return ("dup" if known == body else "mismatch"), holder

    def holder(self, tenant: str, key: str, *, give_up: bool) -> str | None:
        """The task that holds a key; another deployment may take one that is given up."""
        held = self.keys.get((tenant, key))
        if held is not None and held != MOVED:
            return held[0]
        if give_up:
            self.keys[tenant, key] = MOVED
        return None

    def free(self, tenant: str, key: str, task_id: str) -> None:
        """Frees a key if this task holds it, or, without one, if it was given up."""
        held = self.keys.get((tenant, key))
        if held is not None and (held[0] == task_id if task_id else held == MOVED):
            del self.keys[tenant, key]

    def claim(self, worker: str, limit: int) -> list[ModelTask]:
        """The tasks that a replica gets."""
        total = sum(len(self.waiting(lane)) for lane in LANES)
        if total == 0:
            return []
        limit = min(limit, math.ceil(total / max(1, len(self.live))))
        self.claims += 1
        order = {0: ("low", "normal", "high"), 4: ("normal", "high", "low")}.get(
            self.claims % 8, LANES
        )
        taken: list[ModelTask] = []
        for lane in order:
            chosen = self.waiting(lane)[: limit - len(taken)]
            if chosen:
                self.virtual[lane] = max(self.virtual[lane], chosen[-1].tag)
            taken += chosen
        for task in taken:
            task.state, task.where, task.worker = "running", "lease", worker
            task.attempt += 1
            task.version += 1
        return taken

    def begin(self, worker: str, batch: list[tuple[str, int]]) -> None:
        """Notes the batch of a replica."""
        self.began[worker] = set(batch)

    def runs(self, task_id: str, attempt: int) -> bool:
        """Whether this attempt holds the task."""
        task = self.tasks.get(task_id)
        return task is not None and (task.state, task.attempt) == ("running", attempt)

    def complete(self, task_id: str, attempt: int, result: bytes) -> str:
        """ok, again or stale."""
        task = self.tasks.get(task_id)
        if task is None or task.attempt != attempt:
            return "stale"
        if task.state == "running":
            task.result = result
            self._finish(task, "completed")
            return "ok"
        return "again" if task.state == "completed" else "stale"

    def fail(self, task_id: str, attempt: int, how: str) -> str:
        """retry, failed or stale."""
        if not self.runs(task_id, attempt):
            return "stale"
        task = self.tasks[task_id]
        free = how == "free"
        task.failures += not free
        if how == "final" or task.failures >= self.max_attempts:
            self._finish(task, "failed")
            return "failed"
        task.state, task.where = "queued", "delay"
        task.version += 1
        task.uncharged += free
        return "retry"

    def release(self, task_id: str, attempt: int) -> bool:
        """Whether it went back."""
        if not self.runs(task_id, attempt):
            return False
        self._requeue(self.tasks[task_id], charged=False)
        return True

    def cancel(self, task_id: str) -> str | None:
        """The state it is in now."""
        task = self.tasks.get(task_id)
        if task is None:
            return None
        if task.state not in TERMINAL:
            self._finish(task, "cancelled")
        return task.state

    def forget(self, task_id: str, *, unfinished: bool) -> None:
        """Forgets a task that has finished, or one that has not."""
        task = self.tasks.get(task_id)
        if task is None or (task.state not in TERMINAL) != unfinished:
            return
        if unfinished:
            self._finish(task, "cancelled")
        del self.tasks[task_id]

    def deadline_passes(self, task_id: str) -> None:
        """What tick does to a task whose deadline is over."""
        task = self.tasks.get(task_id)
        if task is not None and task.state not in TERMINAL and task.expires:
            self._finish(task, "expired")

    def delay_passes(self, task_id: str) -> None:
        """What tick does to a task whose retry is due."""
        task = self.tasks.get(task_id)
        if task is not None and task.where == "delay":
            task.where = task.lane

    def lease_passes(self, task_id: str) -> None:
        """What tick does to a task whose lease is over."""
        task = self.tasks.get(task_id)
        if task is None or task.where != "lease":
            return
        if (task_id, task.attempt) not in self.began.get(task.worker, set()):
            self._requeue(task, charged=False)
            return
        task.crashes += 1
        if task.crashes >= self.max_crashes:
            self._finish(task, "failed")
        else:
            self._requeue(task, charged=True)

    def _requeue(self, task: ModelTask, *, charged: bool) -> None:
        task.state, task.where = "queued", task.lane
        task.version += 1
        task.uncharged += not charged

    def _finish(self, task: ModelTask, state: str) -> None:
        task.state, task.where = state, ""
        task.version += 1
        if self.unfinished(task.tenant) == 0:
            for lane in LANES:
                self.tags.pop((lane, task.tenant), None)
