"""Requests and answers as bytes."""

from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from inferstack.client import Timeouts, UnexpectedAnswerError, transport, wire
from inferstack.client.types import Receipt, Submission, Task
from inferstack.client.wire import Request, Response

NOON = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)


def answer(status: int, body: bytes, **headers: str) -> Response:
    return Response(status=status, headers=headers, body=body)


@pytest.mark.parametrize(
    ("hold", "prefer"),
    [
        (30.0, "wait=30"),
        (0.25, "wait=0.25"),
        (29.9999999, "wait=30"),
        (1e-9, None),
        (0.0, None),
        (1e7, "wait=10000000"),
    ],
)
def test_the_time_to_wait_is_a_plain_decimal(hold: float, prefer: str | None) -> None:
    assert wire.get("7", hold).headers.get("prefer") == prefer


def test_a_limited_request_waits_no_longer_than_its_caller() -> None:
    request = wire.submit(Submission({"text": "a"}), "key", 30.0)
    short = wire.limited(request, 1.5)
    assert (short.headers["prefer"], short.hold) == ("wait=1.5", 1.5)
    assert short.headers["idempotency-key"] == "key"
    over = wire.limited(short, 0.0)
    assert ("prefer" in over.headers, over.hold, over.patience) == (False, 0.0, wire.GRACE)
    assert wire.limited(request, 90.0).headers == request.headers


def test_a_limited_request_waits_for_a_connection_no_longer_either() -> None:
    request = Request(method="GET", path="/", hold=30.0)
    free = transport.httpx_arguments(request, Timeouts())["timeout"]
    assert free == httpx.Timeout(60.0, connect=5.0, pool=None)
    short = transport.httpx_arguments(wire.limited(request, 1.0), Timeouts())["timeout"]
    assert short == httpx.Timeout(3.0)


def test_a_submission_carries_only_what_was_set() -> None:
    request = wire.submit(Submission({"text": "a"}), "key")
    assert request.body == b'{"data":{"text":"a"}}'
    assert request.headers["idempotency-key"] == "key"


def test_a_task_id_cannot_leave_its_place_in_the_path() -> None:
    assert wire.get("../auth?x=/#").path == "/api/inference/..%2Fauth%3Fx%3D%2F%23"


def test_filters_that_are_none_are_left_out() -> None:
    request = wire.history(status=None, since=NOON, limit=3)
    assert request.query == {"since": "2026-03-04T12:00:00+00:00", "limit": "3"}


def test_the_status_tells_a_task_from_a_receipt() -> None:
    body = b'{"task_id": "7", "status": "queued"}'
    assert isinstance(wire.read_submitted(answer(202, body)), Receipt)
    assert isinstance(wire.read_submitted(answer(200, body)), Task)


def test_a_task_with_fields_of_a_newer_server_is_read() -> None:
    assert wire.read_task(answer(200, b'{"task_id": "7", "status": "failed", "new": 1}')).finished


@pytest.mark.parametrize("body", [b"", b"[]", b'{"task_id": "7"}', b'{"task_id":"7","status":"x"}'])
def test_an_answer_outside_the_contract_is_refused(body: bytes) -> None:
    with pytest.raises(UnexpectedAnswerError):
        wire.read_task(answer(200, body))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Wed, 04 Mar 2026 12:00:05 GMT", 5.0),
        ("Wed, 04 Mar 2026 11:59:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str, seconds: float | None) -> None:
    response = answer(503, b"busy", **{"retry-after": header})
    assert wire.read_problem(response, NOON).retry_after == seconds


def test_the_more_exact_retry_after_of_the_body_wins() -> None:
    response = answer(429, b'{"retry_after": 0.25}', **{"retry-after": "1"})
    assert wire.read_problem(response).retry_after == 0.25


def test_a_problem_keeps_the_status_of_the_answer() -> None:
    problem = wire.read_problem(answer(404, msgspec.json.encode({"status": 200, "title": "t"})))
    assert (problem.status, problem.detail) == (404, "t")
