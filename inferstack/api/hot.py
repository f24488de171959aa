"""The hot routes: submit and read a task, without FastAPI.

FastAPI's parameter machinery costs more than all the rest of such a request together; see
docs/decisions. Their OpenAPI is written by hand in `openapi`.
"""

import msgspec

from inferstack.api import preferences
from inferstack.api.auth import Authenticator
from inferstack.api.bodies import read_submission, require_json
from inferstack.api.exchange import JSON_TYPE, NO_STORE, Handler, Headers, Request, Response
from inferstack.api.meter import Meter
from inferstack.api.views import receipt_view, task_view
from inferstack.lifecycle.tasks import Tasks
from inferstack.lifecycle.types import Caller, Receipt
from inferstack.lifecycle.waits import Departure
from inferstack.task import Task

COLLECTION = "/api/inference"
PREFIX = "/api/inference/"
ITEM = "/api/inference/{task_id}"
NAMES = frozenset({"batch"})
"""Last parts of a path under PREFIX that are not task ids."""

_PREFIX = PREFIX.encode()
_encode = msgspec.json.Encoder().encode


class HotRoutes:
    """`POST /api/inference` and `GET /api/inference/{task_id}`."""

    def __init__(
        self, tasks: Tasks, authenticator: Authenticator, meter: Meter, longest_wait: float
    ) -> None:
        """Args: longest_wait: seconds that a request may wait at most."""
        self.meter = meter
        self._tasks = tasks
        self._authenticator = authenticator
        self._longest_wait = longest_wait

    def match(self, method: str, path: str) -> tuple[Handler, str] | None:
        """The handler of a request and the pattern of its path, if it is a hot one."""
        if method == "POST":
            return (self.submit, COLLECTION) if path == COLLECTION else None
        if method == "GET" and path.startswith(PREFIX):
            last = path[len(PREFIX) :]
            if last and "/" not in last and last not in NAMES:
                return self.read, ITEM
        return None

    async def submit(self, request: Request) -> Response:
        """Accepts a task; with `Prefer: wait=N` answers with the finished one if it can."""
        headers = request.headers
        caller = self._authenticator.known(headers)
        if caller is None:
            caller = await self._authenticator.caller(headers)
        require_json(headers.get(b"content-type"))
        wait = self._wait(request)
        key = headers.get(b"idempotency-key")
        submission = read_submission(request.body)
        request.body = b""  # The wait may be long, the body large.
        named = None if key is None else preferences.idempotency_key(key)
        trace = preferences.traceparent(headers.get(b"traceparent"))
        if wait > 0:
            departure = None
            if submission.cancel_on_disconnect:
                departure = request.departure = request.departure or Departure()
            answer = await self._tasks.run(
                caller, submission, wait, idempotency_key=named, trace=trace, departure=departure
            )
        else:
            answer = await self._tasks.submit(
                caller, submission, idempotency_key=named, trace=trace
            )
        self.meter.count(answer)
        if isinstance(answer, Receipt):
            return _receipt_response(answer, wait)
        return _task_response(answer, caller, wait)

    async def read(self, request: Request) -> Response:
        """A task as it is now, or as it is when it finishes within the wait."""
        caller = self._authenticator.known(request.headers)
        if caller is None:
            caller = await self._authenticator.caller(request.headers)
        task_id = request.path[len(PREFIX) :]
        wait = self._wait(request)
        task = await self._tasks.get(caller, task_id, wait)
        return _task_response(task, caller, wait)

    def _wait(self, request: Request) -> float:
        prefer = request.headers.get(b"prefer")
        if prefer is None and not request.query:
            return 0.0
        return preferences.wait_seconds(prefer, request.query, self._longest_wait)


def _task_response(task: Task, caller: Caller, wait: float) -> Response:
    headers: Headers = [JSON_TYPE, NO_STORE, (b"x-task-id", task.spec.task_id.encode())]
    if wait > 0:
        headers.append(preferences.applied(wait))
    return Response(200, headers, _encode(task_view(task, caller)))


def _receipt_response(receipt: Receipt, wait: float) -> Response:
    task_id = receipt.task_id.encode()
    headers: Headers = [
        JSON_TYPE,
        NO_STORE,
        (b"x-task-id", task_id),
        (b"location", _PREFIX + task_id),
    ]
    if wait > 0:
        headers.append(preferences.applied(wait))
    if receipt.existing:
        headers.append((b"idempotency-replayed", b"true"))
    return Response(202, headers, _encode(receipt_view(receipt)))
