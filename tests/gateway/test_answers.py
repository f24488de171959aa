"""What callers get: the UI, the API, problem details of the gateway's own, and the access log."""

import re
from collections.abc import Iterator

import httpx
import pytest

from inferstack.api.ui import SECURITY
from inferstack.errors import (
    BadRequestError,
    HeadersTooLargeError,
    InferstackError,
    MethodNotAllowedError,
    NotFoundError,
    UrlTooLongError,
)
from tests.gateway.conftest import PAGE, SCRIPT
from tests.gateway.gateway import Gateway, problem, send
from tests.gateway.stack import Replicated
from tests.gateway.upstream import unreachable
from tests.services import free_port

Headers = dict[str, str]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """A browser or a program."""
    with gateway.http() as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/tasks/1?x=y", "/index.html", "/models"])
def test_every_page_of_the_ui_is_its_index(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    # The same page is as safe from here as from the API itself.
    for name, value in SECURITY:
        assert answer.headers[name.decode()] == value.decode()


def test_assets_are_kept_by_browsers_and_compressed(client: httpx.Client) -> None:
    answer = client.get("/assets/app-1a2b.js")
    assert (answer.status_code, answer.text) == (200, SCRIPT)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert problem(client.get("/assets/app-old.js"))["status"] == 404


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/api/../metrics", "/metrics?x"]
)
def test_metrics_are_not_public(gateway: Gateway, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = send(gateway.port, request.encode())
    assert answer.status_code == 404
    assert answer.json()["type"].endswith("/not-found")


@pytest.mark.parametrize("path", ["/api", "/api/nothing", "/v1", "/v2/nothing", "/health/nothing"])
def test_what_the_api_does_not_know_is_no_page_of_the_ui(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert problem(answer)["detail"] == f"there is nothing at {path}"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"


def test_health_and_the_documentation_are_open(client: httpx.Client) -> None:
    assert client.get("/health").json()["status"] == "healthy"
    assert client.get("/api/docs").status_code == 200
    assert client.get("/api/openapi.json").json()["info"]["title"] == "inferstack"


def test_nobody_is_local_behind_a_gateway(client: httpx.Client, stack: Replicated) -> None:
    data = {"data": {"payload": "x"}}
    local = {"host": "localhost"}
    answers = [client.post("/api/inference", json=data, headers=local) for _ in range(4)]
    assert {answer.status_code for answer in answers} == {401}
    assert httpx.post(f"{stack.url}/api/inference", json=data, trust_env=False).is_success


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (b"GET /assets/none HTTP/1.1\r\nHost: x\r\n", NotFoundError),
        (b"POST /index.html HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n", MethodNotAllowedError),
        (b"GET /api/" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n", UrlTooLongError),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n", HeadersTooLargeError),
        (b"GET / HTTP/1.1\r\n", BadRequestError),
        (b"this is no HTTP\r\n", BadRequestError),
    ],
    ids=["404", "405", "414", "431", "400", "400 line"],
)
def test_the_gateway_refuses_in_the_words_of_the_api(
    client: httpx.Client, gateway: Gateway, request_: bytes, kind: type[InferstackError]
) -> None:
    answer = send(gateway.port, request_ + b"Connection: close\r\n\r\n")
    assert answer.status_code == kind.status
    found, theirs = answer.json(), kind().problem(answer.json()["instance"])
    assert answer.headers["content-type"] == "application/problem+json"
    assert (found["type"], found["title"]) == (theirs["type"], theirs["title"])
    assert (answer.headers.get("allow") is not None) == (kind is MethodNotAllowedError)


def test_an_api_that_is_not_there_is_502_and_says_when_to_come_back() -> None:
    with Gateway(f"127.0.0.1:{free_port()}") as gateway, gateway.http() as client:
        answer = client.get("/api/models")
        assert answer.status_code == 502
        assert problem(answer)["type"].endswith("/bad-gateway")
        assert answer.headers["retry-after"] in {"1", "2"}
        # The gateway itself lives: nobody should restart it.
        assert client.get("/gateway/live").json() == {"status": "healthy"}


def test_an_api_that_does_not_answer_is_504() -> None:
    with unreachable() as address, Gateway(address) as gateway, gateway.http() as client:
        answer = client.get("/api/models")
        assert answer.status_code == 504
        assert problem(answer)["type"].endswith("/gateway-timeout")


def test_a_line_of_the_access_log_leads_to_the_task_and_its_trace(
    gateway: Gateway, stack: Replicated, caller: Headers
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    named = caller | {"x-request-id": "mine", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with gateway.http() as client:
        body = {"data": {"payload": "logged"}}
        answer = client.post("/api/inference?wait=0&token=secret", json=body, headers=named)
        task_id = answer.json()["task_id"]
        assert answer.headers["x-request-id"] == "mine"
        waited = client.post("/api/inference?wait=10", json=body, headers=caller)
        assert waited.status_code == 200
        again = client.get(f"/api/inference/{task_id}", headers=caller)
    line = gateway.logged("mine")
    assert line["trace_id"] == trace
    assert line["task_id"] == task_id
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/inference", 202)
    assert line["upstream"] in stack.addresses
    assert line["client"] == "127.0.0.1"
    assert line["seconds"] >= 0
    assert "secret" not in str(line)
    finished = gateway.logged(waited.headers["x-request-id"])
    assert finished["task_id"] == waited.json()["task_id"] == waited.headers["x-task-id"]
    read = gateway.logged(again.headers["x-request-id"])
    assert read["task_id"] == task_id
    assert read["trace_id"] == ""
    assert re.fullmatch(r"[0-9a-f]{32}", read["request_id"])


def test_no_request_can_break_a_line_of_the_log_or_a_problem(gateway: Gateway) -> None:
    nasty = 'GET /metrics/"\\,"x":"y HTTP/1.1\r\nHost: x\r\nUser-Agent: "\\\x01\r\n'
    answer = send(gateway.port, f"{nasty}Connection: close\r\n\r\n".encode())
    assert answer.json()["instance"] == "/"
    line = gateway.logged(answer.headers["x-request-id"])
    assert (line["path"], line["status"]) == ("/", answer.status_code)
