"""Counts and times answers; one object a process."""

import itertools
import re
import secrets
import time

from prometheus_client import Counter

from inferstack.api.exchange import Handler, Request, Response
from inferstack.api.problems import problem_response
from inferstack.lifecycle.types import Answer, Receipt
from inferstack.telemetry import metrics

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Meter:
    """Answers requests, and writes down how long it took and what came of it.

    Children of metrics are kept by their label values: looking them up costs more than
    counting does.
    """

    def __init__(self) -> None:
        """Starts counting requests in flight."""
        self.in_flight = 0
        metrics.HTTP_IN_FLIGHT.set_function(lambda: self.in_flight)
        self._prefix = secrets.token_hex(4).encode()
        self._numbers = itertools.count(1)
        self._tasks: dict[tuple[str, int, str, bool], Counter] = {}

    async def answer(self, handler: Handler, route: str, request: Request) -> Response:
        """The response of a handler, or the problem details of what it raised."""
        start = time.perf_counter()
        self.in_flight += 1
        try:
            response = await handler(request)
        except Exception as error:
            response = problem_response(error, request.path)
        finally:
            self.in_flight -= 1
        response.headers.append((b"x-request-id", self.request_id(request.headers)))
        self.observe(route, request.method, response.status, time.perf_counter() - start)
        return response

    def request_id(self, headers: dict[bytes, bytes]) -> bytes:
        """The id the caller gave, if it is fit for a header, or a new one."""
        given = headers.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._numbers))

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Notes one answer.

        Args:
            route: the pattern of the path, so that there are few.
            method: as sent.
            status: as answered.
            seconds: how long it took.
        """
        metrics.HTTP.observe((route, method, status), seconds)

    def count(self, answer: Answer) -> None:
        """Notes a submitted task, and whether it has finished already."""
        finished = not isinstance(answer, Receipt)
        spec = answer.spec
        word = answer.state if finished else spec.priority
        labels = (spec.model, spec.model_version, word, finished)
        child = self._tasks.get(labels)
        if child is None:
            family = metrics.TASKS_ANSWERED if finished else metrics.TASKS_ACCEPTED
            child = family.labels(spec.model, str(spec.model_version), word)
            self._tasks[labels] = child
        child.inc()
