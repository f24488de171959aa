"""The client for code without an event loop."""

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from inferstack.client import options, transport
from inferstack.client.dead_letters import (
    DeadLetterDetail,
    DeadLetterPage,
    Purged,
    RedriveOptions,
    RedriveReceipt,
)
from inferstack.client.errors import Problem, UnreachableError
from inferstack.client.flows import Flow, Flows
from inferstack.client.options import Retries, Timeouts
from inferstack.client.types import (
    Model,
    Receipt,
    Submission,
    SubmitOptions,
    Task,
    TaskPage,
    Token,
)
from inferstack.client.wire import Request, Response
from inferstack.task import Priority, TaskState

T = TypeVar("T")


class Client:
    """Talks to the API of inferstack; safe to share between threads.

    Every method raises `Problem` when the API refuses, and `UnreachableError` when it does
    not answer, after as many repetitions as `Retries` allows.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        retries: Retries | None = None,
        max_connections: int = 100,
    ) -> None:
        """Connects with the first call, not before.

        Args:
            url: where the API is; INFERSTACK_URL, then `http://127.0.0.1:8000`, if None.
            token: access token; INFERSTACK_TOKEN if None and there is no key.
            api_key: API key; INFERSTACK_API_KEY if None and there is no token.
            timeouts: the longest to wait for the network.
            retries: how often to repeat what may succeed next time.
            max_connections: connections at the same time; more calls wait their turn.

        Raises:
            ConfigurationError: the URL is not one, or there are both a token and a key.
        """
        self._timeouts = timeouts or Timeouts()
        self._flows = Flows(self._timeouts, retries or Retries())
        self._target = options.target(url, token, api_key)
        self._http = httpx.Client(**transport.httpx_settings(self._target, max_connections))

    def infer(
        self,
        data: dict[str, Any],
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        **rest: Unpack[SubmitOptions],
    ) -> Task:
        """Submits a task and waits for its result.

        Args:
            data: the input, in the shape that the model takes.
            wait: seconds to wait for the result; the API may take 2 s more to say that there is
                none yet. Until the task finished if None.
            idempotency_key: names this submit; a new random one if None.
            rest: see `Submission`.

        Raises:
            TaskNotCompletedError: the task failed, expired or was cancelled.
            WaitTimeoutError: `wait` seconds passed first; the task lives on.
        """
        return self._run(self._flows.infer(Submission(data, **rest), idempotency_key, wait))

    def submit(
        self,
        data: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        **rest: Unpack[SubmitOptions],
    ) -> Receipt:
        """Submits a task and returns once it is stored durably; arguments as for `infer`."""
        return self._run(self._flows.submit(Submission(data, **rest), idempotency_key))

    def wait(self, task_id: str, timeout: float | None = None) -> Task:
        """Waits until a task finished, in whichever state.

        Args:
            task_id: the task.
            timeout: seconds to wait; the API may take 2 s more to say that the task has not
                finished. None sets no limit.

        Raises:
            WaitTimeoutError: `timeout` seconds passed first; the task lives on.
        """
        return self._run(self._flows.wait(task_id, timeout))

    def get(self, task_id: str) -> Task:
        """The task as it is now."""
        return self._run(self._flows.get(task_id))

    def cancel(self, task_id: str) -> Task:
        """Cancels a task; a running one ends at the next chance."""
        return self._run(self._flows.cancel(task_id))

    def batch(self, submissions: Iterable[Submission]) -> tuple[Receipt | Problem, ...]:
        """Submits many tasks in one request; the answer holds one entry for each, in order.

        If the answer is lost, they are sent again under the same idempotency key, so that each
        is submitted once.
        """
        return self._run(self._flows.batch(tuple(submissions)))

    def list(
        self,
        *,
        status: TaskState | str | None = None,
        model: str | None = None,
        priority: Priority | str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> TaskPage:
        """One page of history, newest first, without results; None applies no filter.

        Args:
            status: state of the tasks.
            model: name of their model.
            priority: their lane.
            since: submitted then or later.
            limit: tasks on the page; the server's default if None.
            cursor: `next_cursor` of the page before.
        """
        filters = {"status": status, "model": model, "priority": priority}
        rest = {"since": since, "limit": limit, "cursor": cursor}
        return self._run(self._flows.history(filters | rest))

    def dead_letters(
        self,
        *,
        model: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> DeadLetterPage:
        """One page of failed tasks, the latest failure first; None applies no filter.

        Args:
            model: name of their model.
            error: type of their error, such as `engine-error`.
            since: failed then or later.
            limit: tasks on the page; the server's default if None.
            cursor: `next_cursor` of the page before.
        """
        filters = {"model": model, "error": error, "since": since}
        return self._run(self._flows.dead_letters(filters | {"limit": limit, "cursor": cursor}))

    def dead_letter(self, task_id: str) -> DeadLetterDetail:
        """A failed task with its input."""
        return self._run(self._flows.dead_letter(task_id))

    def redrive(self, task_id: str, **changes: Unpack[RedriveOptions]) -> RedriveReceipt:
        """Submits a failed task again as a new one; however often, there is only one."""
        return self._run(self._flows.redrive(task_id, changes))

    def redrive_many(
        self,
        task_ids: Iterable[str] | None = None,
        *,
        model: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> tuple[RedriveReceipt | Problem, ...]:
        """Redrives those that are named, or those that a filter finds, the oldest first.

        The answer holds one entry for each; each problem names its task in `task_id`.
        """
        named = None if task_ids is None else tuple(task_ids)
        filters = {"model": model, "error": error, "since": since, "limit": limit}
        return self._run(self._flows.redrive_many(named, filters))

    def purge(
        self,
        task_id: str | None = None,
        *,
        model: str | None = None,
        error: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        everything: bool = False,
    ) -> Purged:
        """Removes one failed task for good, or those that a filter finds, the oldest first.

        Args:
            task_id: this one; the filters do not count then.
            model: name of their model.
            error: type of their error.
            before: failed earlier.
            limit: how many at most; the server's default if None.
            everything: that no id and no filter means all of the caller's; of an admin's call,
                everybody's.

        Raises:
            InvalidRequestError: there is no id, no filter and no `everything`.
        """
        filters = {"model": model, "error": error, "before": before}
        return self._run(self._flows.purge(task_id, filters, limit, everything))

    def models(self) -> Sequence[Model]:
        """The model versions that the server knows."""
        return self._run(self._flows.models())

    def login(self, username: str, password: str) -> Token:
        """Gets an access token and uses it from now on; it is not renewed by itself."""
        token = self._run(self._flows.login(username, password))
        self._http.headers.pop("x-api-key", None)
        self._http.headers.update(options.bearer(token.access_token))
        return token

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Closes the connections at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                try:
                    response = self._send(request)
                except UnreachableError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(response)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _send(self, request: Request) -> Response:
        if request.after > 0:
            time.sleep(request.after)
        transport.refuse_closed(self._http.is_closed)
        arguments = transport.httpx_arguments(request, self._timeouts)
        with transport.translated(self._target):
            return transport.read(self._http.request(**arguments))
