"""Every failure as RFC 9457 problem details, in one place."""

import logging
import math
import random
import re
from http import HTTPStatus
from typing import Any

import msgspec

from inferstack.api.exchange import NO_STORE, PROBLEM_TYPE, Headers, Response
from inferstack.errors import InferstackError, InvalidRequestError, wrong_field
from inferstack.task import Priority, task_id_hint
from inferstack.telemetry import metrics

log = logging.getLogger(__name__)

_encoder = msgspec.json.Encoder()
MAX_NAME = 200
"""Characters of a field's name in a problem: callers may invent longer ones."""
MAX_MESSAGE = 500

_TAKES = {
    "priority": f"takes {', '.join(list(Priority)[:-1])} or {list(Priority)[-1]}",
    "webhook": "webhooks are not supported yet",
}
"""What to say of a field, where that is clearer than what msgspec says."""

_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(?P<field>.*)`$")


def problem(error: Exception, instance: str) -> tuple[int, Headers, dict[str, Any]]:
    """What to answer for an exception: status, headers, body.

    An exception that is none of ours is logged and answered without its text.

    Args:
        error: what a handler raised.
        instance: the path of the request.
    """
    if isinstance(error, RecursionError):
        error = InvalidRequestError("the JSON is nested too deeply", errors=[_body("too deep")])
    if not isinstance(error, InferstackError):
        log.error("request failed: %s", instance, exc_info=error)
        error = InferstackError("the server failed; its log says why")
    metrics.HTTP_PROBLEMS.labels(error.slug).inc()
    headers = [PROBLEM_TYPE, NO_STORE]
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Bearer realm="inferstack"'))
    if error.retry_after is not None:
        # Of a few whole seconds a quarter is none at all.
        seconds = _scattered(max(1, math.ceil(error.retry_after)), least=1.0)
        headers.append((b"retry-after", b"%d" % round(seconds)))
    # Only what is one: a caller can ask for any, also for one with a line break in it.
    if error.task_id is not None and task_id_hint(error.task_id) is not None:
        headers.append((b"x-task-id", error.task_id.encode()))
    return error.status, headers, details(error, instance)


def details(error: InferstackError, instance: str) -> dict[str, Any]:
    """The problem details to answer: what the error says, but no two callers come back together.

    Args:
        error: what was refused.
        instance: the path of the request.
    """
    body = error.problem(instance)
    if error.retry_after is not None:
        body["retry_after"] = _scattered(error.retry_after)
    return body


def _scattered(seconds: float, least: float = 0.0) -> float:
    """Up to a quarter longer: those who were refused together must not come back together.

    Args:
        seconds: after which to come back.
        least: seconds that it may be longer in any case.
    """
    return seconds + random.uniform(0.0, max(least, seconds / 4))


def problem_response(error: Exception, instance: str) -> Response:
    """The whole response for an exception."""
    status, headers, body = problem(error, instance)
    return Response(status, headers, _encoder.encode(body))


def invalid_body(error: Exception, body: bytes) -> InvalidRequestError:
    """Names the field that made msgspec refuse a body.

    Args:
        error: a `msgspec.DecodeError`, `UnicodeDecodeError` or `RecursionError`.
        body: what was refused.
    """
    if isinstance(error, msgspec.ValidationError):
        entry = field_error(str(error))
        return wrong_field(**entry)
    if isinstance(error, RecursionError):
        return InvalidRequestError("the JSON is nested too deeply", errors=[_body("too deep")])
    if isinstance(error, UnicodeDecodeError):
        return InvalidRequestError("the body is not UTF-8", errors=[_body("not UTF-8")])
    reason = str(error)
    if reason == "Input data was truncated" and _SURROGATE.search(body):
        # What msgspec says of such an escape shortly before the end.
        reason = "a string may hold half of a surrogate pair"
    return InvalidRequestError(f"the body is not JSON: {reason}", errors=[_body(reason)])


def field_error(text: str) -> dict[str, str]:
    """Field and message of a validation error of msgspec, such as ``... - at `$.priority` ``."""
    match = _PATH.match(text)
    message, path = (match["message"], match["path"]) if match else (text, None)
    path = (path or "").lstrip(".")
    inner = _FIELD.match(message)
    if inner:
        path = f"{path}.{inner['field']}".lstrip(".")
        message = "is missing" if "missing" in message else "is not a known field"
    message = _TAKES.get(path, message)
    return {"field": path[:MAX_NAME] or "body", "message": message[:MAX_MESSAGE]}


def _body(message: str) -> dict[str, str]:
    return {"field": "body", "message": message}
