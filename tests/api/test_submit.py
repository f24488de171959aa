"""What `POST /api/inference` answers, and every row of bad input."""

import time
from typing import Any

import httpx
import msgspec
import pytest

from inferstack.api.exchange import Request
from inferstack.errors import (
    DeploymentUnavailableError,
    QueueFullError,
    QueueUnavailableError,
    StorageUnavailableError,
    TenantQueueFullError,
)
from inferstack.task import new_task_id
from tests.api.fakes import World

URL = "/api/inference"
JSON = {"content-type": "application/json"}
GOOD = {"data": {"text": "hello"}}


async def test_a_submit_is_answered_202_with_location(
    client: httpx.AsyncClient, world: World
) -> None:
    answer = await client.post(URL, json=GOOD)
    assert answer.status_code == 202
    body = answer.json()
    assert body["status"] == "queued"
    assert body["queue_position"] == 3
    assert body["estimated_wait_time"] == 0.25
    assert answer.headers["location"] == f"{URL}/{body['task_id']}"
    assert answer.headers["x-task-id"] == body["task_id"]
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize(
    ("headers", "query", "wait", "applied"),
    [
        ({"prefer": "wait=5"}, "", 5.0, "wait=5"),
        ({"prefer": "respond-async, WAIT = 2.5; x=y"}, "", 2.5, "wait=2.5"),
        ({"prefer": 'wait="7"'}, "", 7.0, "wait=7"),
        ({"prefer": "wait=100000"}, "", 60.0, "wait=60"),
        ({"prefer": 'foo="a,wait=9", wait=2'}, "", 2.0, "wait=2"),
        ({"prefer": 'foo="a\\",wait=9", wait=2'}, "", 2.0, "wait=2"),
        ({}, "?wait=3", 3.0, "wait=3"),
        ({"prefer": "wait=9"}, "?wait=3", 3.0, "wait=3"),
        ({}, "?a=%C3%A9&b=%ff&wait=3", 3.0, "wait=3"),
    ],
)
async def test_a_wait_gives_the_finished_task(
    client: httpx.AsyncClient,
    world: World,
    headers: dict[str, str],
    query: str,
    wait: float,
    applied: str,
) -> None:
    answer = await client.post(URL + query, json=GOOD, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == applied
    assert world.tasks.calls[-1]["wait"] == wait
    body = answer.json()
    assert answer.headers["x-task-id"] == body["task_id"]
    assert body["status"] == "completed"
    assert body["result"] == {"text": "hello"}
    assert body["created_at"] == "2026-11-23T16:00:00.250000Z"
    assert body["processing_time"] == pytest.approx(0.2)
    assert body["timings"] == {"queue_ms": 100.0, "batch_wait_ms": 1.0, "compute_ms": 2.0}
    assert body["batch_size"] == 32


@pytest.mark.parametrize("value", ["%ff", "%C3%A9", "%D9%A3", "3%00"])
async def test_a_wait_in_a_query_that_is_no_number_is_named(
    client: httpx.AsyncClient, value: str
) -> None:
    answer = await client.post(f"{URL}?wait={value}", json=GOOD)
    assert (answer.status_code, _field(answer)) == (422, "wait")


@pytest.mark.parametrize("value", [b"wait=" + b" " * 60_000 + b"x", b'"\\' * 30_000])
async def test_a_long_preference_is_read_quickly(client: httpx.AsyncClient, value: bytes) -> None:
    started = time.process_time()
    await client.post(URL, json=GOOD, headers=[(b"prefer", value)])
    assert time.process_time() - started < 1


async def test_several_prefer_lines_count_as_one_list(
    client: httpx.AsyncClient, world: World
) -> None:
    headers = [("prefer", "handling=strict"), ("prefer", "wait=4"), ("x", "y")]
    answer = await client.post(URL, json=GOOD, headers=headers)
    assert answer.headers["preference-applied"] == "wait=4"


async def test_a_wait_that_runs_out_gives_a_receipt(
    client: httpx.AsyncClient, world: World
) -> None:
    world.tasks.finishes = False
    answer = await client.post(URL, json=GOOD, headers={"prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.headers["location"]


@pytest.mark.parametrize("prefer", ["handling=lenient", "wait=0"])
async def test_no_wait_is_a_plain_submit(
    client: httpx.AsyncClient, world: World, prefer: str
) -> None:
    answer = await client.post(URL, json=GOOD, headers={"prefer": prefer})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize("value", ["-1", "soon", "", "nan", "1e9", "1,5x"])
async def test_a_nonsense_wait_is_refused(client: httpx.AsyncClient, value: str) -> None:
    answer = await client.post(URL, json=GOOD, headers={"prefer": f"wait={value}"})
    if value == "1,5x":  # the list holds wait=1 and something unknown
        assert answer.status_code == 200
        return
    assert _field(answer) == "Prefer"
    answer = await client.post(URL, json=GOOD, params={"wait": value})
    assert _field(answer) == "wait"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b'{"data": {}', "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'{"data": {}} x', "body"),
        (b'{"data": {"a": NaN}}', "body"),
        (b'{"data": {"a": "\xff"}}', "body"),
        (b"{}", "data"),
        (b'{"data": "text"}', "data"),
        (b'{"data": null}', "data"),
        (b'{"data": {}, "colour": 1}', "colour"),
        (b'{"data": {}, "model": 3}', "model"),
        (b'{"data": {}, "model": ""}', "model"),
        (b'{"data": {}, "model_version": "1"}', "model_version"),
        (b'{"data": {}, "model_version": 0}', "model_version"),
        (b'{"data": {}, "model_version": 1.5}', "model_version"),
        (b'{"data": {}, "priority": "urgent"}', "priority"),
        (b'{"data": {}, "priority": 1}', "priority"),
        (b'{"data": {}, "timeout": -1}', "timeout"),
        (b'{"data": {}, "timeout": 0}', "timeout"),
        (b'{"data": {}, "timeout": 1e9}', "timeout"),
        (b'{"data": {}, "timeout": "60"}', "timeout"),
        (b'{"data": {}, "webhook": "https://x.example"}', "webhook"),
        (b'{"data": {}, "metadata": []}', "metadata"),
        (b'{"data": {}, "reject_if_late": 1}', "reject_if_late"),
    ],
)
async def test_a_bad_body_is_refused_naming_the_field(
    client: httpx.AsyncClient, world: World, body: bytes, field: str
) -> None:
    answer = await client.post(URL, content=body, headers=JSON)
    assert _field(answer) == field
    assert world.tasks.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": {"a": ' + b"[" * 200_000,
        b'{"data": {"a": ' + b"[" * 101 + b"]" * 101 + b"}}",
        b'{"data": ' + b'{"a": ' * 500 + b"1" + b"}" * 501,
        b'{"data": {}, "metadata": {"a": ' + b"[" * 150 + b"]" * 150 + b"}}",
        b'{"data": {"a": [' + b"[]," * 600_000 + b"1]}}",
        b'{"data": {' + b",".join(b'"%d":1' % n for n in range(600_000)) + b"}}",
        b'{"data": {"a": [' + b"1," * 1_100_000 + b"1]}}",
    ],
    ids=[
        "unclosed",
        "deep-lists",
        "deep-objects",
        "deep-metadata",
        "many-lists",
        "many-keys",
        "many-numbers",
    ],
)
async def test_deep_or_huge_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post(URL, content=body, headers=JSON)
    assert answer.status_code == 422


async def test_much_but_shallow_json_is_taken(client: httpx.AsyncClient) -> None:
    data = {"rows": [[float(n), n] for n in range(20_000)], "deep": _nested(90)}
    answer = await client.post(URL, json={"data": data})
    assert answer.status_code == 202


async def test_a_long_text_may_hold_what_looks_like_parts(client: httpx.AsyncClient) -> None:
    table = '12:30,"\\",[{1.5}]\n' * 400_000
    assert (await client.post(URL, json={"data": {"table": table}})).status_code == 202
    hidden = b'{"data": {"a": "\\\\", "b": [' + b"{}," * 300_000 + b"1]}}"
    assert (await client.post(URL, content=hidden, headers=JSON)).status_code == 422


async def test_data_may_be_exactly_as_deep_as_the_limit(client: httpx.AsyncClient) -> None:
    assert (await client.post(URL, json={"data": {"a": _nested(99)}})).status_code == 202
    assert (await client.post(URL, json={"data": {"a": _nested(100)}})).status_code == 422


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"data": {}, "priority": "urgent"}', "takes high, normal or low"),
        (b'{"data": {}, "priority": 1}', "takes high, normal or low"),
        (b'{"data": {}, "webhook": null}', "webhooks are not supported yet"),
        (b'{"data": {"a": "\\ud800"}}', "a string may hold half of a surrogate pair"),
        (b'{"data": {"a": "b"}', "Input data was truncated"),
    ],
)
async def test_a_refusal_says_what_it_takes(
    client: httpx.AsyncClient, body: bytes, message: str
) -> None:
    answer = await client.post(URL, content=body, headers=JSON)
    assert _problem(answer)["errors"][0]["message"] == message


async def test_a_refusal_does_not_repeat_a_long_name(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json={"data": {}, "x" * 10_000: 1})
    assert answer.status_code == 422
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", None]
)
async def test_another_content_type_is_refused(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post(URL, content=b'{"data": {}}', headers=headers)
    assert answer.status_code == 415
    assert _problem(answer)["type"].endswith("/unsupported-media-type")


@pytest.mark.parametrize(
    "path",
    [
        URL,
        f"{URL}/batch",
        "/api/auth/login",
        "/api/auth/keys",
        "/api/dead-letters/redrive",
        "/api/dead-letters/x/redrive",
    ],
)
async def test_every_route_with_a_body_refuses_another_content_type(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.post(path, content=b"[]", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


async def test_parameters_of_the_content_type_do_not_matter(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON ; charset=utf-8"}
    answer = await client.post(URL, content=b'{"data": {}}', headers=headers)
    assert answer.status_code == 202


async def test_a_body_over_the_limit_is_refused_whether_its_length_is_told_or_not() -> None:
    world = World(max_body_bytes=1024)
    transport = httpx.ASGITransport(app=world.edge)

    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 200

    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        told = await client.post(URL, content=b" " * 1025, headers=JSON)
        untold = await client.post(URL, content=chunks(), headers=JSON)
        fits = await client.post(URL, content=b'{"data": {}}'.ljust(1024), headers=JSON)
    assert (told.status_code, untold.status_code, fits.status_code) == (413, 413, 202)
    assert _problem(told)["type"].endswith("/payload-too-large")


async def test_an_unknown_model_is_404(client: httpx.AsyncClient) -> None:
    answer = await client.post(URL, json={**GOOD, "model": "nope"})
    assert answer.status_code == 404
    assert _problem(answer)["type"].endswith("/model-not-found")


@pytest.mark.parametrize(("error", "status"), [(TenantQueueFullError, 429), (QueueFullError, 503)])
async def test_a_full_queue_says_when_to_come_back(
    client: httpx.AsyncClient, world: World, error: type[QueueFullError], status: int
) -> None:
    world.tasks.error = error(retry_after=2.4)
    answer = await client.post(URL, json=GOOD)
    assert answer.status_code == status
    assert answer.headers["retry-after"] in {"3", "4"}
    assert 2.4 <= _problem(answer)["retry_after"] <= 3.0


async def test_a_submit_without_a_certain_end_tells_its_task_in_the_head_too(
    client: httpx.AsyncClient, world: World
) -> None:
    task_id = new_task_id("echo:1")
    world.tasks.error = QueueUnavailableError(task_id=task_id)
    answer = await client.post(URL, json=GOOD)
    assert answer.status_code == 503
    assert answer.headers["x-task-id"] == _problem(answer)["task_id"] == task_id


@pytest.mark.parametrize("error", [DeploymentUnavailableError(), StorageUnavailableError()])
async def test_what_is_away_says_when_to_come_back(
    client: httpx.AsyncClient, world: World, error: Exception
) -> None:
    world.tasks.error = error
    answer = await client.post(URL, json=GOOD)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] in {"5", "6"}
    assert 5.0 <= answer.json()["retry_after"] <= 6.25


async def test_an_unexpected_error_is_500_without_its_text(
    client: httpx.AsyncClient, world: World
) -> None:
    world.tasks.error = RuntimeError("secret inner thing")
    answer = await client.post(URL, json=GOOD)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert _problem(answer)["type"].endswith("/internal-error")


@pytest.mark.parametrize("key", ["a", "order 17", "k" * 255])
async def test_an_idempotency_key_is_passed_on(
    client: httpx.AsyncClient, world: World, key: str
) -> None:
    await client.post(URL, json=GOOD, headers={"idempotency-key": key})
    assert world.tasks.calls[-1]["idempotency_key"] == key


@pytest.mark.parametrize("key", [b"", b"k" * 256, b"a\tb", "käse".encode()])
async def test_a_bad_idempotency_key_is_refused(client: httpx.AsyncClient, key: bytes) -> None:
    answer = await client.post(URL, json=GOOD, headers=[(b"idempotency-key", key)])
    assert _field(answer) == "Idempotency-Key"


async def test_only_a_valid_traceparent_is_passed_on(
    client: httpx.AsyncClient, world: World
) -> None:
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    await client.post(URL, json=GOOD, headers={"traceparent": good})
    assert world.tasks.calls[-1]["trace"] == good
    await client.post(URL, json=GOOD, headers={"traceparent": "nonsense"})
    assert world.tasks.calls[-1]["trace"] is None


async def test_a_request_id_is_made_or_kept(client: httpx.AsyncClient) -> None:
    made = [(await client.post(URL, json=GOOD)).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    kept = await client.post(URL, json=GOOD, headers={"x-request-id": "mine-1"})
    assert kept.headers["x-request-id"] == "mine-1"
    bad = await client.post(URL, json=GOOD, headers=[(b"x-request-id", b"two words")])
    assert bad.headers["x-request-id"] != "two words"


def _nested(depth: int) -> Any:
    return msgspec.json.decode(b"[" * depth + b"]" * depth)


def _problem(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["status"] == answer.status_code
    assert body["instance"] == answer.request.url.path
    return body


def _field(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    return str(_problem(answer)["errors"][0]["field"])


async def test_a_client_that_left_before_its_request_was_looked_at_is_known_to_have_left() -> None:
    world = World()
    headers = {b"content-type": b"application/json", b"prefer": b"wait=5", b"host": b"localhost"}
    body = b'{"data": {}, "cancel_on_disconnect": true}'
    request = Request("POST", "/api/inference", b"", headers, body)
    request.abandon()
    await world.edge.hot.submit(request)
    (departure,) = world.tasks.departures
    assert departure is not None
    assert departure.gone
