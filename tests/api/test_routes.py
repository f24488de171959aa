"""Reading, listing, batches, cancelling, and what lies beside the routes."""

import asyncio
import re
from inspect import iscoroutinefunction
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from inferstack.api.app import ROUTERS
from inferstack.api.bodies import read_batch
from inferstack.api.health import Check
from inferstack.errors import StorageUnavailableError
from inferstack.task import Priority, TaskError, TaskState, new_task_id
from tests.api.fakes import World

URL = "/api/inference"
# As `new_task_id("echo:1")` makes them; fixed, since it names tests.
UNKNOWN = "01a20e47-d468-7f65-899d-8f2417c7257b"
GOOD = {"data": {"text": "hello"}}


async def submit(client: httpx.AsyncClient, **headers: str) -> str:
    answer = await client.post(URL, json=GOOD, headers=headers)
    return str(answer.json()["task_id"])


async def test_a_task_can_be_read(client: httpx.AsyncClient, world: World) -> None:
    task_id = await submit(client)
    answer = await client.get(f"{URL}/{task_id}")
    assert answer.status_code == 200
    assert answer.json()["task_id"] == task_id
    assert answer.json()["started_at"] is None
    waited = await client.get(f"{URL}/{task_id}", headers={"prefer": "wait=2"})
    assert waited.headers["preference-applied"] == "wait=2"
    assert world.tasks.calls[-1]["wait"] == 2.0


@pytest.mark.parametrize("task_id", ["x", "0" * 36, UNKNOWN])
async def test_an_unknown_task_is_404(client: httpx.AsyncClient, task_id: str) -> None:
    for answer in (
        await client.get(f"{URL}/{task_id}"),
        await client.delete(f"{URL}/{task_id}"),
        await client.post(f"{URL}/{task_id}/cancel"),
    ):
        assert answer.status_code == 404
        assert answer.json()["type"].endswith("/task-not-found")
        assert answer.json()["task_id"] == task_id


async def test_an_id_that_is_none_gets_into_no_header(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{URL}/x%0d%0ax-evil:1")
    assert answer.status_code == 404
    assert answer.json()["task_id"] == "x\r\nx-evil:1"
    assert not {"x-task-id", "x-evil"} & set(answer.headers)


async def test_another_tenants_task_is_404(client: httpx.AsyncClient, world: World) -> None:
    task_id = await submit(client, **world.bearer())
    url = f"{URL}/{task_id}"
    assert (await client.get(url, headers=world.bearer())).status_code == 200
    assert (await client.get(url, headers=world.bearer("bob", "other"))).status_code == 404
    assert (await client.get(url, headers=world.bearer("root", "x", "admin"))).status_code == 200


async def test_a_traceback_is_shown_to_admins_only(client: httpx.AsyncClient, world: World) -> None:
    task_id = await submit(client, **world.bearer())
    world.tasks.fail(task_id, TaskError("engine-error", "boom", traceback="line 1"))
    mine = (await client.get(f"{URL}/{task_id}", headers=world.bearer())).json()
    assert mine["error"] == {"type": "engine-error", "message": "boom"}
    admin = world.bearer("root", "x", "admin")
    seen = (await client.get(f"{URL}/{task_id}", headers=admin)).json()
    assert seen["error"]["traceback"] == "line 1"


async def test_a_task_is_cancelled_both_ways(client: httpx.AsyncClient) -> None:
    task_id = await submit(client)
    for answer in (
        await client.delete(f"{URL}/{task_id}"),
        await client.post(f"{URL}/{task_id}/cancel"),
        await client.post(f"{URL}/{task_id}/cancel", json={}),
    ):
        assert answer.status_code == 200
        assert answer.json()["status"] == "cancelled"


async def test_a_bad_item_does_not_sink_a_batch(client: httpx.AsyncClient) -> None:
    items = [GOOD, {"data": 1}, {**GOOD, "model": "nope"}, 7, GOOD]
    answer = await client.post(f"{URL}/batch", json=items)
    assert answer.status_code == 200
    body: list[dict[str, Any]] = answer.json()
    assert [item["status"] for item in body] == ["queued", 422, 404, 422, "queued"]
    assert body[1]["errors"][0]["field"] == "data"
    assert body[1]["instance"] == f"{URL}/batch"


@pytest.mark.parametrize("size", [0, 1001])
async def test_an_empty_or_too_long_batch_is_refused(client: httpx.AsyncClient, size: int) -> None:
    answer = await client.post(f"{URL}/batch", json=[GOOD] * size)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body"


async def test_others_use_the_event_loop_while_a_batch_is_read() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(others())
    item = b'{"data": {"text": "%b"}}' % (b"x" * 14_000)
    items = await read_batch(b"[" + b",".join([item] * 1000) + b"]", 1000)
    busy.cancel()
    assert len(items) == 1000
    assert turns > 40


@pytest.mark.parametrize("body", [b"{}", b"[", b'[{"data"', b"", b"\xff"])
async def test_a_batch_that_is_no_array_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post(f"{URL}/batch", content=body, headers=headers)
    assert answer.status_code == 422


async def test_a_list_takes_filters(client: httpx.AsyncClient, world: World) -> None:
    await submit(client)
    query = "?status=queued&model=echo&priority=low&since=2026-11-23T16:00:00Z&limit=7&cursor=c"
    answer = await client.get(URL + query)
    assert answer.status_code == 200
    assert answer.json()["next_cursor"] == "next"
    assert len(answer.json()["tasks"]) == 1
    wanted = world.tasks.calls[-1]["filter"]
    assert (wanted.status, wanted.priority) == (TaskState.QUEUED, Priority.LOW)
    assert (wanted.since, wanted.limit, wanted.cursor) == (1_795_449_600.0, 7, "c")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"),
        ("priority=urgent", "priority"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("since=yesterday", "since"),
        ("since=1_0", "since"),
        ("since=%D9%A1%D9%A2", "since"),
        ("since=nan", "since"),
        ("model=%00", "model"),
        ("cursor=%00", "cursor"),
    ],
)
async def test_a_bad_filter_is_refused(client: httpx.AsyncClient, query: str, field: str) -> None:
    answer = await client.get(f"{URL}?{query}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"] == field


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", URL, "GET, HEAD, POST"),
        ("PUT", f"{URL}/{UNKNOWN}", "DELETE, GET, HEAD"),
        ("GET", f"{URL}/batch", "DELETE, POST"),
        ("GET", "/api/auth/login", "POST"),
        ("PUT", "/api/auth/keys", "GET, HEAD, POST"),
        ("DELETE", "/health", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["allow"] == allowed
    assert answer.json()["detail"] == f"this path takes {allowed}"


async def test_an_unforeseen_error_is_a_problem_without_its_text_and_one_line_of_the_log(
    client: httpx.AsyncClient,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise RuntimeError("secret inner thing")

    monkeypatch.setattr(world.tasks, "deployments", fail)
    answer = await client.get("/api/models")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert answer.json()["type"].endswith("/internal-error")
    assert "secret" not in answer.text
    assert len([record for record in caplog.records if record.exc_info]) == 1


@pytest.mark.parametrize("path", ["/nope", f"{URL}/", "/api/inference/a/b", "/api/%2e"])
async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]


async def test_no_cache_may_keep_an_answer(client: httpx.AsyncClient) -> None:
    answers = [
        await client.post(URL, json=GOOD, headers={"prefer": prefer}) for prefer in ("", "wait=1")
    ]
    task_id = answers[0].json()["task_id"]
    paths = (URL, f"{URL}/{task_id}", "/api/models", "/api/auth/me", "/health", "/api/docs")
    answers += [await client.get(path) for path in paths]
    answers += [await client.head(URL)]
    assert all(answer.is_success for answer in answers)
    problems = [await client.get(path) for path in ("/nope", f"{URL}/{UNKNOWN}", f"{URL}?limit=0")]
    problems += [
        await client.put(URL),
        await client.post(URL, content=b"x"),
        await client.post(URL),
    ]
    assert all(answer.is_client_error for answer in problems)
    for answer in answers + problems:
        assert answer.headers.get_list("cache-control") == ["no-store"], answer.request
    script = await client.get("/api/docs/assets/swagger-ui-bundle.js")
    assert script.headers.get_list("cache-control") == ["max-age=86400"]


async def test_models_are_shown_with_state_and_queue(client: httpx.AsyncClient) -> None:
    found = (await client.get("/api/models")).json()["models"]
    shown = [(model["model"], model["state"], model["default"]) for model in found]
    assert shown == [("broken", "failed", False), ("echo", "ready", True)]
    assert found[0]["reason"] == "no such file"
    assert found[1]["waiting"] == {"high": 1, "normal": 2, "low": 0}
    assert found[1]["replicas"][0]["capacity"] == 10.0


async def test_metrics_show_requests_and_queues(client: httpx.AsyncClient) -> None:
    await client.post(URL, json=GOOD)
    await client.get("/nope")
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    text = answer.text
    process = r'process="api-\d+"'
    labels = rf'{process},model="echo",priority="normal",version="1"'
    assert re.search(rf"queue_depth\{{{labels}\}} 2\.0", text)
    labels = rf'{process},method="POST",route="/api/inference",status="202"'
    assert re.search(rf"http_requests_total\{{{labels}\}} \d+\.0", text)
    assert re.search(rf"http_request_duration_seconds_count\{{{labels}\}} \d+\.0", text)
    assert 'route="unmatched",status="404"' in text
    listed = await client.get(f"{URL}/{new_task_id('echo:1')}")
    assert listed.status_code == 404
    assert 'route="/api/inference/{task_id}"' in (await client.get("/metrics")).text


async def test_health_tells_what_is_missing() -> None:
    fine = True

    async def queue() -> None:
        if not fine:
            raise StorageUnavailableError("away")

    async def database() -> None:
        raise StorageUnavailableError("away")

    checks = (Check("queue", queue, True), Check("database", database, False))
    world = World(checks=checks)
    monitor = world.services.monitor
    transport = httpx.ASGITransport(app=world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await monitor.start()
        degraded = await client.get("/health")
        assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
        detailed = (await client.get("/health/detailed")).json()
        assert [c["ok"] for c in detailed["components"]] == [True, False]
        assert detailed["deployments"][0]["waiting"] == 3
        await monitor.stop()
        fine = False
        await monitor.start()
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        await monitor.stop()


async def test_openapi_documents_the_hot_routes(client: httpx.AsyncClient) -> None:
    document = (await client.get("/api/openapi.json")).json()
    submit = document["paths"][URL]["post"]
    assert {"200", "202", "401", "404", "413", "415", "422", "429", "503"} <= set(
        submit["responses"]
    )
    assert submit["requestBody"]["content"]["application/json"]["examples"]
    assert document["paths"][f"{URL}/{{task_id}}"]["get"]
    assert {"bearer", "apiKey"} <= set(document["components"]["securitySchemes"])
    assert list(_missing(document, document)) == []


@pytest.mark.parametrize("page", ["/api/docs", "/api/redoc"])
async def test_the_documentation_needs_no_other_host(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.status_code == 200
    # Also what its scripts would ask for: the browser does not let them.
    policy = answer.headers["content-security-policy"]
    sources = {word for rule in policy.split("; ") for word in rule.split(" ")[1:]}
    assert sources == {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}
    wanted = re.findall(r"""(?:src|href|url|spec-url)(?:=|: )["']([^"']+)""", answer.text)
    assert {"openapi.json", "data:,"} < set(wanted)
    for url in wanted:
        assert not re.match(r"https?:|//", url)
        if url != "data:,":
            found = await client.get(str(answer.url.join(url)))
            assert found.status_code == 200
            assert len(found.content) > 10_000


@pytest.mark.parametrize("page", ["/api/docs", "/api/redoc"])
async def test_no_other_page_can_frame_the_documentation(
    client: httpx.AsyncClient, page: str
) -> None:
    headers = (await client.get(page)).headers
    (policy,) = headers.get_list("content-security-policy")
    rules = {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"}
    assert rules <= set(policy.split("; "))
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


async def test_an_asset_that_is_none_is_404(client: httpx.AsyncClient) -> None:
    for name in ("favicon.png", "..%2fcore.py", "%2e%2e/core.py"):
        assert (await client.get(f"/api/docs/assets/{name}")).status_code == 404


async def test_a_browser_that_was_given_the_address_only_is_led_to_the_documentation(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.get("/")
    assert answer.status_code == 307
    assert (await client.get(str(answer.url.join(answer.headers["location"])))).status_code == 200


def test_no_route_and_nothing_that_it_asks_for_takes_a_thread() -> None:
    found = [
        route.dependant
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
    ]
    assert len(found) > 20
    for dependant in found:
        assert iscoroutinefunction(dependant.call), dependant.call
        found += dependant.dependencies


def _missing(node: Any, document: dict[str, Any]) -> Any:
    """Every reference in a document that leads nowhere."""
    if isinstance(node, list):
        for item in node:
            yield from _missing(item, document)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            target: Any = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target.get(part) if isinstance(target, dict) else None
            if target is None:
                yield node["$ref"]
        for item in node.values():
            yield from _missing(item, document)
