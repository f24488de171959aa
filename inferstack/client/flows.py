"""What a call does, step by step, without I/O.

A flow is a generator. It yields requests, is sent the answers, and returns what the call
came to. The two clients differ only in how they run flows.
"""

import random
import time
import uuid
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import msgspec

from inferstack.client import dead_letters, wire
from inferstack.client.dead_letters import (
    DeadLetterDetail,
    DeadLetterPage,
    Purged,
    RedriveOptions,
    RedriveReceipt,
)
from inferstack.client.errors import (
    ClientError,
    Problem,
    TaskNotCompletedError,
    UnreachableError,
    WaitTimeoutError,
)
from inferstack.client.options import Retries, Timeouts
from inferstack.client.types import Model, Receipt, Submission, Task, TaskPage, Token
from inferstack.client.wire import Request, Response
from inferstack.errors import InvalidRequestError
from inferstack.task import TaskState

T = TypeVar("T")
Flow = Generator[Request, Response, T]

SHORTEST_ROUND = 0.5
"""Seconds from one look at a task to the next, should the API answer early."""


class Flows:
    """Makes the flow of each call."""

    def __init__(self, timeouts: Timeouts, retries: Retries) -> None:
        """Args: timeouts: how long to wait; retries: how often to repeat."""
        self._timeouts = timeouts
        self._retries = retries
        self._rng = random.Random()

    def submit(self, submission: Submission, key: str | None) -> Flow[Receipt]:
        """Submits a task."""
        request = wire.submit(submission, new_key() if key is None else key)
        return wire.read_receipt((yield from self._call(request)))

    def infer(self, submission: Submission, key: str | None, timeout: float | None) -> Flow[Task]:
        """Submits a task and waits for its result."""
        until = self._until(timeout)
        chosen = new_key() if key is None else key
        request = wire.submit(submission, chosen, self._timeouts.hold)
        task = wire.read_submitted((yield from self._call(request, until)))
        if isinstance(task, Receipt) or not task.finished:
            task = yield from self._wait(task.task_id, until)
        if task.status is not TaskState.COMPLETED:
            raise TaskNotCompletedError(task)
        return task

    def wait(self, task_id: str, timeout: float | None) -> Flow[Task]:
        """Waits until a task finished."""
        return self._wait(task_id, self._until(timeout))

    def get(self, task_id: str) -> Flow[Task]:
        """Reads a task as it is now."""
        return wire.read_task((yield from self._call(wire.get(task_id))))

    def cancel(self, task_id: str) -> Flow[Task]:
        """Cancels a task."""
        return wire.read_task((yield from self._call(wire.cancel(task_id))))

    def batch(self, submissions: Sequence[Submission]) -> Flow[tuple[Receipt | Problem, ...]]:
        """Submits many tasks."""
        return wire.read_batch((yield from self._call(wire.batch(submissions, new_key()))))

    def history(self, filters: dict[str, Any]) -> Flow[TaskPage]:
        """Reads a page of history."""
        return wire.read_page((yield from self._call(wire.history(**filters))))

    def models(self) -> Flow[tuple[Model, ...]]:
        """Reads which models there are."""
        return wire.read_models((yield from self._call(wire.models())))

    def login(self, username: str, password: str) -> Flow[Token]:
        """Gets an access token."""
        return wire.read_token((yield from self._call(wire.login(username, password))))

    def dead_letters(self, filters: dict[str, Any]) -> Flow[DeadLetterPage]:
        """Reads a page of dead letters."""
        answer = yield from self._call(dead_letters.dead_letters(filters))
        return dead_letters.read_page(answer)

    def dead_letter(self, task_id: str) -> Flow[DeadLetterDetail]:
        """Reads one dead letter."""
        answer = yield from self._call(dead_letters.dead_letter(task_id))
        return dead_letters.read_detail(answer)

    def redrive(self, task_id: str, changes: RedriveOptions) -> Flow[RedriveReceipt]:
        """Submits a dead letter again as a new task."""
        answer = yield from self._call(dead_letters.redrive(task_id, changes))
        return dead_letters.read_redriven(answer)

    def redrive_many(
        self, task_ids: Sequence[str] | None, filters: dict[str, Any]
    ) -> Flow[tuple[RedriveReceipt | Problem, ...]]:
        """Submits many dead letters again."""
        answer = yield from self._call(dead_letters.redrive_many(task_ids, filters))
        return dead_letters.read_many(answer)

    def purge(
        self, task_id: str | None, filters: dict[str, Any], limit: int | None, everything: bool
    ) -> Flow[Purged]:
        """Removes dead letters; an id that is None by mistake must not remove all of them."""
        if task_id is None and not everything and not any(filters.values()):
            raise InvalidRequestError("purge takes an id, a filter, or everything=True")
        wanted = filters | {"limit": limit, "everything": "true" if everything else None}
        answer = yield from self._call(dead_letters.purge(task_id, wanted))
        return dead_letters.read_purged(answer)

    def _wait(self, task_id: str, until: float) -> Flow[Task]:
        pause = 0.0
        while True:
            request = wire.get(task_id, self._timeouts.hold)
            began = time.monotonic() + pause
            try:
                answer = yield from self._call(msgspec.structs.replace(request, after=pause), until)
                task = wire.read_task(answer)
            except ClientError as error:
                # The task lives on without us: its id is what its caller needs now.
                error.task_id = task_id
                raise
            if task.finished:
                return task
            now = time.monotonic()
            if now >= until:
                raise WaitTimeoutError(f"task {task_id} is still {task.status}", task_id=task_id)
            pause = min(max(0.0, began + SHORTEST_ROUND - now), until - now)

    def _call(self, request: Request, until: float = float("inf")) -> Flow[Response]:
        failures, spent = 0, 0.0
        while True:
            try:
                response = yield _limited(request, until)
                if response.status < 400:
                    return response
                raise wire.read_problem(response)
            except (Problem, UnreachableError) as failure:
                failures += 1
                delay = self._delay(failure, failures, request)
                spent += delay
                if spent > self._retries.budget or time.monotonic() + delay > until:
                    raise
                request = msgspec.structs.replace(request, after=delay)

    def _delay(self, failure: ClientError, failures: int, request: Request) -> float:
        delay = self._retries.delay(failure, failures, request, self._rng)
        if delay is None:
            raise failure
        return delay

    def _until(self, timeout: float | None) -> float:
        return float("inf") if timeout is None else time.monotonic() + timeout


def _limited(request: Request, until: float) -> Request:
    if until == float("inf"):
        return request
    return wire.limited(request, max(0.0, until - time.monotonic() - request.after))


def new_key() -> str:
    """An idempotency key that nobody else uses."""
    return uuid.uuid4().hex
