"""What clients were promised, and what they saw of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from inferstack.client import Task, wire
from inferstack.config import Settings
from inferstack.task import TERMINAL, TaskState
from tests.faults import hazard
from tests.faults.tally import Tally

ANSWERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "echo": dict,
    "hazard": hazard.answer,
}
"""What a model has to make of an input."""


class Wanted(NamedTuple):
    """What a submit asked for."""

    data: dict[str, Any]
    ends: TaskState
    """How its task has to end."""


@dataclass
class Promises:
    """The submits of one test. Every payload is unique, so nothing can pass for another."""

    model: str = "echo"
    objects: Path | None = None
    """The folder of the object store, if large bodies go there."""
    kept: float = Settings.model_fields["archived_ttl"].default
    """Seconds for which Redis keeps what is archived."""
    began: float = field(default_factory=time.time)
    """Whatever is made after this is of this test."""
    steady: bool = True
    """Whether the clocks of Redis and PostgreSQL run on: only then are their times compared."""
    submitted: dict[str, Wanted] = field(default_factory=dict)
    """By payload."""
    accepted: dict[str, str] = field(default_factory=dict)
    """task id -> payload, for each submit that was answered."""
    denied: set[str] = field(default_factory=set)
    """Payloads whose only submit was refused: there must be no task."""
    seen: dict[str, Task] = field(default_factory=dict)
    """Terminal states that a client has seen; they must never change (I2)."""
    lost: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)

    def intend(self, ends: TaskState = TaskState.COMPLETED, **data: Any) -> dict[str, Any]:
        """The input of a new submit."""
        payload = uuid4().hex
        self.submitted[payload] = Wanted({"payload": payload, **data}, ends)
        return self.submitted[payload].data

    def accept(self, task_id: str, payload: str) -> None:
        """A submit was answered with this task."""
        if self.accepted.setdefault(task_id, payload) != payload:
            self.wrong(f"I3: {task_id} is the task of two submits", doubled=task_id)

    def hear(self, payload: str, status: int, body: bytes) -> None:
        """A submit was answered with 202 and a receipt, or with 200 and its finished task."""
        answer = wire.read_submitted(wire.Response(status=status, headers={}, body=body))
        self.accept(answer.task_id, payload)
        if isinstance(answer, Task):
            self.see(answer)

    def see(self, task: Task) -> None:
        """A client reads a task: a terminal state is as it has to be, and on a second look too."""
        if task.status not in TERMINAL:
            return
        known = self.seen.setdefault(task.task_id, task)
        if known is task:
            payload = self.accepted[task.task_id]
            self.judge(task.task_id, payload, task.status, task.error, task.result)
        elif (known.status, known.result, known.error) != (task.status, task.result, task.error):
            self.wrong(f"I2: {task.task_id} changed", doubled=task.task_id)

    def judge(
        self, task_id: str, payload: str, state: str, error: Any, result: Any, where: str = ""
    ) -> None:
        """Whether a task has ended as it has to.

        Args:
            task_id: of the task.
            payload: of the submit that made it.
            state: the task's.
            error: why it failed.
            result: what the model made of its input.
            where: this was found, for the message.
        """
        wanted = self.submitted[payload]
        if state != wanted.ends:
            self.wrong(f"I1: {task_id} is {state}{where}: {error}", lost=task_id)
        elif state == TaskState.COMPLETED and result != ANSWERS[self.model](wanted.data):
            what = f"I2: {task_id} has a result of something else{where}: {str(result)[:200]}"
            self.wrong(what, doubled=task_id)

    def wrong(self, what: str, *, lost: str = "", doubled: str = "") -> None:
        """Notes a violation; a task counts once, however often it is found.

        Args:
            what: was found; it begins with the invariant.
            lost: a task, or the payload of a submit, that is not there as it was promised.
            doubled: one that there is more than once, or is as it must not be.
        """
        self.tally.violations.append(what)
        for task, found in ((lost, self.lost), (doubled, self.doubled)):
            if task:
                found.add(task)
        self.tally.lost, self.tally.doubled = len(self.lost), len(self.doubled)
