"""The client for code on an event loop; each method does what its namesake in `Client` does."""

import asyncio
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


class AsyncClient:
    """Talks to the API of inferstack; the methods of `Client`, to be awaited."""

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
        """Connects with the first call, not before; arguments and errors as for `Client`."""
        self._timeouts = timeouts or Timeouts()
        self._flows = Flows(self._timeouts, retries or Retries())
        self._target = options.target(url, token, api_key)
        self._http = httpx.AsyncClient(**transport.httpx_settings(self._target, max_connections))

    async def infer(
        self,
        data: dict[str, Any],
        *,
        wait: float | None = None,
        idempotency_key: str | None = None,
        **rest: Unpack[SubmitOptions],
    ) -> Task:
        """Submits a task and waits for its result; see `Client.infer`."""
        return await self._run(self._flows.infer(Submission(data, **rest), idempotency_key, wait))

    async def submit(
        self,
        data: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        **rest: Unpack[SubmitOptions],
    ) -> Receipt:
        """Submits a task and returns once it is stored durably; see `Client.submit`."""
        return await self._run(self._flows.submit(Submission(data, **rest), idempotency_key))

    async def wait(self, task_id: str, timeout: float | None = None) -> Task:  # noqa: ASYNC109
        """Waits until a task finished, in whichever state; see `Client.wait`."""
        return await self._run(self._flows.wait(task_id, timeout))

    async def get(self, task_id: str) -> Task:
        """The task as it is now."""
        return await self._run(self._flows.get(task_id))

    async def cancel(self, task_id: str) -> Task:
        """Cancels a task; a running one ends at the next chance."""
        return await self._run(self._flows.cancel(task_id))

    async def batch(self, submissions: Iterable[Submission]) -> tuple[Receipt | Problem, ...]:
        """Submits many tasks in one request; see `Client.batch`."""
        return await self._run(self._flows.batch(tuple(submissions)))

    async def list(
        self,
        *,
        status: TaskState | str | None = None,
        model: str | None = None,
        priority: Priority | str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> TaskPage:
        """One page of history, newest first, without results; see `Client.list`."""
        filters = {"status": status, "model": model, "priority": priority}
        rest = {"since": since, "limit": limit, "cursor": cursor}
        return await self._run(self._flows.history(filters | rest))

    async def dead_letters(
        self,
        *,
        model: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> DeadLetterPage:
        """One page of failed tasks, the latest failure first; see `Client.dead_letters`."""
        filters = {"model": model, "error": error, "since": since}
        return await self._run(
            self._flows.dead_letters(filters | {"limit": limit, "cursor": cursor})
        )

    async def dead_letter(self, task_id: str) -> DeadLetterDetail:
        """A failed task with its input."""
        return await self._run(self._flows.dead_letter(task_id))

    async def redrive(self, task_id: str, **changes: Unpack[RedriveOptions]) -> RedriveReceipt:
        """Submits a failed task again as a new one; however often, there is only one."""
        return await self._run(self._flows.redrive(task_id, changes))

    async def redrive_many(
        self,
        task_ids: Iterable[str] | None = None,
        *,
        model: str | None = None,
        error: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> tuple[RedriveReceipt | Problem, ...]:
        """Redrives those that are named or found; see `Client.redrive_many`."""
        named = None if task_ids is None else tuple(task_ids)
        filters = {"model": model, "error": error, "since": since, "limit": limit}
        return await self._run(self._flows.redrive_many(named, filters))

    async def purge(
        self,
        task_id: str | None = None,
        *,
        model: str | None = None,
        error: str | None = None,
        before: datetime | None = None,
        limit: int | None = None,
        everything: bool = False,
    ) -> Purged:
        """Removes failed tasks for good; see `Client.purge`."""
        filters = {"model": model, "error": error, "before": before}
        return await self._run(self._flows.purge(task_id, filters, limit, everything))

    async def models(self) -> Sequence[Model]:
        """The model versions that the server knows."""
        return await self._run(self._flows.models())

    async def login(self, username: str, password: str) -> Token:
        """Gets an access token and uses it from now on; see `Client.login`."""
        token = await self._run(self._flows.login(username, password))
        self._http.headers.pop("x-api-key", None)
        self._http.headers.update(options.bearer(token.access_token))
        return token

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Closes the connections at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        await self.close()

    async def _run(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                try:
                    response = await self._send(request)
                except UnreachableError as error:
                    request = flow.throw(error)
                else:
                    request = flow.send(response)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _send(self, request: Request) -> Response:
        if request.after > 0:
            await asyncio.sleep(request.after)
        transport.refuse_closed(self._http.is_closed)
        arguments = transport.httpx_arguments(request, self._timeouts)
        with transport.translated(self._target):
            # httpx limits each step by itself, and not the whole.
            async with asyncio.timeout(request.patience):
                return transport.read(await self._http.request(**arguments))
