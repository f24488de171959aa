"""What both clients do, against a server on a real socket."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from inferstack.client import (
    AsyncClient,
    ClientError,
    InvalidArgumentError,
    Model,
    Problem,
    Receipt,
    Retries,
    Submission,
    TaskNotCompletedError,
    Timeouts,
    UnexpectedAnswerError,
    UnreachableError,
    WaitTimeoutError,
)
from inferstack.errors import InferstackError
from inferstack.task import Priority, TaskState
from tests.client.server import Contract, problem

DATA = {"text": "hello"}
CYCLE: list[Any] = []
CYCLE.append(CYCLE)
BUSY = problem(503, "queue-full", "full", retry_after=0.05)


def test_infer_returns_the_finished_task_with_types(client: Any) -> None:
    task = client.infer(DATA)
    assert task.finished
    assert task.status is TaskState.COMPLETED
    assert task.result == DATA
    assert task.priority is Priority.NORMAL
    assert task.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert task.timings.compute_ms == 1.5


def test_infer_asks_the_server_to_hold_and_sends_only_what_was_set(
    client: Any, contract: Contract
) -> None:
    client.infer(DATA, model="echo", priority="high", timeout=None)
    assert contract.seen[0].headers["prefer"] == "wait=30"
    assert contract.seen[0].body == {
        "data": DATA,
        "model": "echo",
        "priority": "high",
        "timeout": None,
    }


def test_infer_goes_on_waiting_when_the_server_answers_202(
    make: Callable[..., Any], contract: Contract
) -> None:
    contract.compute = 0.35
    task = make(timeouts=Timeouts(hold=0.1)).infer(DATA)
    assert task.result == DATA
    assert [seen.method for seen in contract.seen][:2] == ["POST", "GET"]
    assert len(contract.tasks) == 1


def test_infer_raises_with_the_task_when_it_failed(client: Any, contract: Contract) -> None:
    error = {"type": "engine-error", "message": "boom", "retryable": True}
    contract.outcome = {"status": "failed", "error": error}
    with pytest.raises(TaskNotCompletedError, match="boom") as caught:
        client.infer(DATA)
    assert caught.value.task.error is not None
    assert caught.value.task.error.type == "engine-error"
    assert caught.value.task_id == caught.value.task.task_id


def test_infer_stops_waiting_in_time_and_says_which_task(client: Any, contract: Contract) -> None:
    contract.compute = 30
    began = time.monotonic()
    with pytest.raises(WaitTimeoutError) as caught:
        client.infer(DATA, wait=0.3)
    assert time.monotonic() - began < 1.5
    assert caught.value.task_id in contract.tasks


def test_submit_returns_a_receipt_without_waiting(client: Any, contract: Contract) -> None:
    contract.compute = 30
    receipt = client.submit(DATA)
    assert receipt.status is TaskState.QUEUED
    assert receipt.queue_position == 0
    assert "prefer" not in contract.seen[0].headers


def test_every_submit_has_a_key_of_its_own(client: Any, contract: Contract) -> None:
    client.submit(DATA)
    client.submit(DATA)
    client.submit(DATA, idempotency_key="mine")
    keys = [seen.headers["idempotency-key"] for seen in contract.seen]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"


@pytest.mark.parametrize("fault", ["drop", "truncate"])
def test_a_submit_whose_answer_was_lost_makes_one_task(
    client: Any, contract: Contract, fault: str
) -> None:
    contract.script.extend([fault, fault])
    receipt = client.submit(DATA)
    assert list(contract.tasks) == [receipt.task_id]
    assert len(contract.seen) == 3
    assert len({seen.headers["idempotency-key"] for seen in contract.seen}) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_succeed_later_is_repeated(client: Any, contract: Contract, status: int) -> None:
    contract.script.append(problem(status, "busy", "later"))
    assert client.infer(DATA).result == DATA
    assert len(contract.seen) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
def test_what_will_fail_again_is_not_repeated(client: Any, contract: Contract, status: int) -> None:
    contract.script.append(problem(status, "no", "never", task_id="7"))
    with pytest.raises(Problem) as caught:
        client.infer(DATA)
    assert len(contract.seen) == 1
    error = caught.value
    assert (error.status, error.kind, error.detail, error.task_id) == (status, "no", "never", "7")
    assert error.type == "https://inferstack.dev/problems/no"
    assert isinstance(error, InferstackError)


def test_a_late_refusal_that_the_caller_asked_for_is_told_at_once(
    client: Any, contract: Contract
) -> None:
    contract.script.append(problem(503, "deadline-unreachable", "late", retry_after=0))
    with pytest.raises(Problem, match="late"):
        client.infer(DATA, reject_if_late=True)
    assert len(contract.seen) == 1


@pytest.mark.parametrize("how", ["body", "seconds", "date"])
def test_retry_after_is_honoured(client: Any, contract: Contract, how: str) -> None:
    soon = format_datetime(datetime.fromtimestamp(int(time.time()) + 2, UTC), usegmt=True)
    headers = {"body": {}, "seconds": {"retry-after": "1"}, "date": {"retry-after": soon}}[how]
    body = {"retry_after": 0.9} if how == "body" else {}
    contract.script.append((503, headers, body))
    client.submit(DATA)
    assert contract.seen[1].at - contract.seen[0].at >= 0.9


def test_a_retry_after_beyond_the_budget_is_raised_at_once(client: Any, contract: Contract) -> None:
    contract.script.append(problem(503, "queue-full", "full", retry_after=3600))
    with pytest.raises(Problem) as caught:
        client.submit(DATA)
    assert caught.value.retry_after == 3600
    assert len(contract.seen) == 1


def test_it_gives_up_after_as_many_attempts_as_told(client: Any, contract: Contract) -> None:
    contract.script.extend([BUSY] * 10)
    with pytest.raises(Problem, match="full"):
        client.submit(DATA)
    assert len(contract.seen) == 4


def test_a_retry_never_outlasts_the_time_to_wait(
    make: Callable[..., Any], contract: Contract
) -> None:
    contract.script.append(problem(503, "queue-full", "full", retry_after=2))
    began = time.monotonic()
    with pytest.raises(Problem):
        make().infer(DATA, wait=0.5)
    assert time.monotonic() - began < 2


def test_a_repeated_request_waits_only_for_what_is_left_of_the_time(
    make: Callable[..., Any], contract: Contract
) -> None:
    contract.compute = 30
    task_id = make().submit(DATA).task_id
    calls: list[Callable[[], Any]] = [
        lambda: make().infer(DATA, wait=1.5),
        lambda: make().wait(task_id, timeout=1.5),
    ]
    for call in calls:
        contract.seen.clear()
        contract.script.append(problem(503, "queue-unavailable", "restarting", retry_after=0.6))
        with pytest.raises(WaitTimeoutError):
            call()
        first, second = (float(s.headers["prefer"].split("=")[1]) for s in contract.seen[:2])
        assert 1.0 < first <= 1.5
        assert second <= 0.9


def test_a_server_that_hangs_is_left_when_the_time_to_wait_is_over(
    make: Callable[..., Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            make(url=url, timeouts=Timeouts()).infer(DATA, wait=0.2)
    assert time.monotonic() - began < 5


async def test_an_answer_that_trickles_is_left_when_the_time_to_wait_is_over() -> None:
    left = asyncio.Event()

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.close()
        left.set()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        began = time.monotonic()
        async with AsyncClient(url) as client:
            with pytest.raises(UnreachableError, match="in time"):
                await client.infer(DATA, wait=0.2)
        assert time.monotonic() - began < 5
        await left.wait()


def test_an_answer_of_a_proxy_is_a_problem_too(
    make: Callable[..., Any], contract: Contract
) -> None:
    contract.script.append((502, {"content-type": "text/html"}, b"<h1>Bad Gateway</h1>"))
    with pytest.raises(Problem) as caught:
        make(retries=Retries(attempts=1)).submit(DATA)
    assert (caught.value.status, caught.value.type) == (502, "about:blank")


def test_an_answer_of_something_else_is_named(client: Any, contract: Contract) -> None:
    contract.script.append((200, {}, b"<html>a wiki</html>"))
    with pytest.raises(UnexpectedAnswerError, match="a wiki"):
        client.infer(DATA)


def test_an_unreachable_server_is_tried_again_then_named(make: Callable[..., Any]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=url) as caught:
            make(url=url).submit(DATA)
    assert not caught.value.sent


def test_a_server_that_never_answers_is_left(make: Callable[..., Any], contract: Contract) -> None:
    contract.script.append("hang")
    client = make(timeouts=Timeouts(answer=0.2), retries=Retries(attempts=1))
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        client.submit(DATA)
    assert time.monotonic() - began < 0.9
    assert caught.value.sent


def test_a_server_that_goes_away_while_a_task_runs_leaves_its_id(
    make: Callable[..., Any], contract: Contract
) -> None:
    contract.compute = 30
    contract.script.extend([(202, {}, {"task_id": "7", "status": "queued"}), "drop"])
    client = make(timeouts=Timeouts(hold=0.1), retries=Retries(attempts=1))
    with pytest.raises(UnreachableError) as caught:
        client.infer(DATA)
    assert caught.value.task_id == "7"


@pytest.mark.parametrize("data", [{"a": "\ud800 secret"}, {"a": object()}, {"a": CYCLE}])
def test_data_that_is_no_json_is_refused_by_name(
    client: Any, contract: Contract, data: dict[str, Any]
) -> None:
    for call in (client.infer, client.submit):
        with pytest.raises(InvalidArgumentError, match="cannot be sent as JSON") as caught:
            call(data)
        assert isinstance(caught.value, ClientError)
        assert isinstance(caught.value, ValueError)
        assert "secret" not in str(caught.value)
    assert contract.seen == []


@pytest.mark.parametrize("key", ["", "a\nb", "\u00e9", "x" * 256])
def test_a_key_that_no_header_takes_is_refused_at_once(
    client: Any, contract: Contract, key: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="idempotency key"):
        client.submit(DATA, idempotency_key=key)
    assert contract.seen == []


def test_a_task_id_that_no_url_takes_is_refused(client: Any) -> None:
    for task_id in ("\ud800", "x" * 70_000):
        with pytest.raises(InvalidArgumentError, match="sent"):
            client.get(task_id)


def test_a_closed_client_says_so(client: Any) -> None:
    client.close()
    with pytest.raises(ClientError, match="closed"):
        client.models()


def test_waiting_does_not_hammer_a_server_that_answers_early(
    client: Any, contract: Contract
) -> None:
    contract.compute, contract.ignores_prefer = 1.2, True
    assert client.infer(DATA).finished
    assert len(contract.seen) <= 5


def test_wait_returns_a_failed_task(client: Any, contract: Contract) -> None:
    contract.outcome = {"status": "failed"}
    assert client.wait(client.submit(DATA).task_id).status is TaskState.FAILED


def test_waiting_survives_a_dropped_connection(client: Any, contract: Contract) -> None:
    receipt = client.submit(DATA)
    contract.script.append("drop")
    assert client.wait(receipt.task_id).result == DATA


def test_cancel_returns_the_task_as_it_is_now(client: Any, contract: Contract) -> None:
    contract.compute = 30
    receipt = client.submit(DATA)
    assert client.cancel(receipt.task_id).status is TaskState.CANCELLED
    assert contract.seen[-1].method == "DELETE"


def test_get_of_an_unknown_task_is_a_404_with_its_id(client: Any) -> None:
    with pytest.raises(Problem) as caught:
        client.get("../who knows")
    assert caught.value.status == 404
    assert caught.value.kind == "task-not-found"


def test_a_bad_item_does_not_sink_the_batch(client: Any) -> None:
    first, second, third = client.batch(Submission({"bad": n % 2 == 1}) for n in range(3))
    assert isinstance(first, Receipt)
    assert isinstance(third, Receipt)
    assert isinstance(second, Problem)
    assert second.status == 422
    assert str(second) == "422 invalid-input: no (d: m)"


def test_a_problem_says_nothing_twice() -> None:
    fields = [{"field": "data.text", "message": "is empty"}, {"field": "model", "message": "odd"}]
    problem = Problem(422, type="/invalid-input", detail="data.text: is empty", errors=fields)
    assert str(problem) == "422 invalid-input: data.text: is empty (model: odd)"


def test_a_batch_whose_answer_was_lost_is_sent_again_under_the_same_key(
    client: Any, contract: Contract
) -> None:
    contract.script.append("drop")
    assert len(client.batch([Submission(DATA)])) == 1
    first, second = (seen.headers["idempotency-key"] for seen in contract.seen)
    assert first == second


def test_a_batch_refused_by_the_rate_limit_is_repeated(client: Any, contract: Contract) -> None:
    contract.script.append(problem(429, "rate-limited", "slow down", retry_after=0.01))
    assert len(client.batch([Submission(DATA)])) == 1


def test_list_sends_the_filters_that_are_set(client: Any, contract: Contract) -> None:
    client.submit(DATA)
    page = client.list(status=TaskState.COMPLETED, limit=5)
    assert page.next_cursor == "more"
    assert [task.result for task in page.tasks] == [DATA]
    assert contract.seen[-1].path == "/api/inference?status=completed&limit=5"


def test_models_are_listed(client: Any) -> None:
    assert client.models() == (Model(model="echo", version=1, state="ready"),)


def test_login_uses_the_token_from_then_on(make: Callable[..., Any], contract: Contract) -> None:
    client = make(api_key="is_key")
    token = client.login("admin", "right")
    client.models()
    assert contract.seen[0].headers["x-api-key"] == "is_key"
    assert contract.seen[1].headers["authorization"] == "Bearer t0ken"
    assert "x-api-key" not in contract.seen[1].headers
    assert "t0ken" not in repr(token)


def test_a_wrong_password_is_a_401(client: Any) -> None:
    with pytest.raises(Problem) as caught:
        client.login("admin", "wrong")
    assert caught.value.status == 401
