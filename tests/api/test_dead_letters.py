"""The routes of dead letters over a real Redis, PostgreSQL and object store."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from inferstack.api.tokens import Tokens
from inferstack.config import Settings
from inferstack.lifecycle.types import Caller
from inferstack.storage.database import Database
from inferstack.storage.history import History
from inferstack.task import Execution, Task, TaskError, TaskState, new_task_id
from inferstack.telemetry import metrics
from tests.api.real import serving
from tests.storage.samples import NOW, completed, queued

URL = "/api/dead-letters"
SECRET = "a secret of thirty-two characters"
BOOM = TaskError("engine-error", "boom", traceback="line 1")


def bearer(tenant: str, role: str = "user") -> dict[str, str]:
    token = Tokens(SECRET, 3600).issue(Caller(tenant, tenant, role))
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def settings(clean_redis_url: str, clean_postgres_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=clean_redis_url,
        database_url=clean_postgres_url,
        secret_key=SECRET,
        auth_required=True,
        default_model="echo",
        inferstack_home=tmp_path,
        model_path=tmp_path,
        max_batch_items=3,
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as found:
        found.headers.update(bearer("acme"))
        yield found


@pytest.fixture
async def history(clean_postgres_url: str) -> AsyncIterator[History]:
    database = Database(clean_postgres_url)
    yield History(database)
    await database.close()


async def failed(history: History, number: int = 0, **spec: Any) -> str:
    """An archived task that failed `number` seconds after the others."""
    task: Task = completed(
        queued(**spec),
        state=TaskState.FAILED,
        error=BOOM,
        result=None,
        attempts=3,
        completed_at=NOW + 10 + number,
        crashes=1,
        execution=Execution("host:1:a", 1.25, 2.5, 32),
    )
    await history.upsert([task])
    return task.spec.task_id


def is_problem(answer: httpx.Response, status: int, kind: str, field: str | None = None) -> bool:
    body = answer.json()
    assert (answer.status_code, body["status"]) == (status, status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"].endswith(f"/{kind}"), body
    assert body["instance"].startswith(URL)
    return field is None or body["errors"][0]["field"].startswith(field)


async def test_dead_letters_are_listed_page_by_page(
    client: httpx.AsyncClient, history: History
) -> None:
    ids = [await failed(history, n) for n in range(3)]
    await failed(history, tenant="other")
    first = (await client.get(URL, params={"limit": 2})).json()
    assert [letter["task_id"] for letter in first["dead_letters"]] == [ids[2], ids[1]]
    assert first["dead_letters"][1] == {
        "task_id": ids[1],
        "model": "echo",
        "model_version": 1,
        "priority": "normal",
        "tenant": None,
        "error": {"type": "engine-error", "message": "boom"},
        "attempts": 3,
        "crashes": 1,
        "worker": "host:1:a",
        "failed_at": "2026-09-21T14:13:31.123456Z",
        "created_at": "2026-09-21T14:13:20.123456Z",
    }
    rest = await client.get(URL, params={"limit": 2, "cursor": first["next_cursor"]})
    assert [letter["task_id"] for letter in rest.json()["dead_letters"]] == [ids[0]]
    assert rest.json()["next_cursor"] is None
    since = datetime.fromtimestamp(NOW + 12, UTC).isoformat()
    newest = (await client.get(URL, params={"since": since, "model": "echo"})).json()
    assert [letter["task_id"] for letter in newest["dead_letters"]] == [ids[2]]
    admin = (await client.get(URL, headers=bearer("root", "admin"))).json()
    assert {letter["tenant"] for letter in admin["dead_letters"]} == {"acme", "other"}


async def test_one_is_shown_and_only_an_admin_reads_the_traceback(
    client: httpx.AsyncClient, history: History
) -> None:
    task_id = await failed(history, metadata={"n": 1})
    shown = (await client.get(f"{URL}/{task_id}")).json()
    assert (shown["input"], shown["input_bytes"]) == ({"text": "hi"}, 13)
    assert shown["metadata"] == {"n": 1}
    assert shown["timings"] == {"queue_ms": 250.0, "batch_wait_ms": 1.25, "compute_ms": 2.5}
    assert (shown["batch_size"], shown["traceback"]) == (32, None)
    admin = (await client.get(f"{URL}/{task_id}", headers=bearer("root", "admin"))).json()
    assert (admin["tenant"], admin["traceback"]) == ("acme", "line 1")


async def test_a_redrive_is_answered_like_a_submit_and_a_repeat_says_so(
    client: httpx.AsyncClient, history: History
) -> None:
    before = _counted(metrics.DEAD_LETTERS_REDRIVEN)
    task_id = await failed(history)
    first = await client.post(f"{URL}/{task_id}/redrive", json={"priority": "high"})
    assert first.status_code == 202, first.text
    body = first.json()
    assert body == {
        "task_id": body["task_id"],
        "status": "queued",
        "queue_position": 1,
        "estimated_wait_time": 0.0,
        "redrive_of": task_id,
    }
    assert first.headers["location"] == f"/api/inference/{body['task_id']}"
    assert "idempotency-replayed" not in first.headers
    task = (await client.get(first.headers["location"])).json()
    assert (task["redrive_of"], task["priority"]) == (task_id, "high")
    again = await client.post(f"{URL}/{task_id}/redrive")
    assert (again.status_code, again.json()["task_id"]) == (202, body["task_id"])
    assert again.headers["idempotency-replayed"] == "true"
    assert _counted(metrics.DEAD_LETTERS_REDRIVEN) == before + 1
    assert (await client.get(URL)).json()["dead_letters"] == []
    gone = await client.get(f"{URL}/{task_id}")
    assert is_problem(gone, 404, "not-a-dead-letter")
    assert body["task_id"] in gone.json()["detail"]


async def test_many_are_answered_one_by_one(client: httpx.AsyncClient, history: History) -> None:
    mine = await failed(history)
    theirs = await failed(history, tenant="other")
    answer = await client.post(f"{URL}/redrive", json={"task_ids": [mine, theirs]})
    assert answer.status_code == 200
    first, second = answer.json()
    assert (first["redrive_of"], first["status"]) == (mine, "queued")
    assert (second["status"], second["task_id"]) == (404, theirs)
    more = [await failed(history, n) for n in range(2)]
    wanted = {"model": "echo", "error": "engine-error", "since": NOW, "limit": 1}
    filtered = await client.post(f"{URL}/redrive", json=wanted)
    assert [item["redrive_of"] for item in filtered.json()] == more[:1]


async def test_purged_dead_letters_are_counted_and_gone(
    client: httpx.AsyncClient, history: History
) -> None:
    before = _counted(metrics.DEAD_LETTERS_PURGED)
    ids = [await failed(history, n) for n in range(4)]
    assert (await client.delete(f"{URL}/{ids[0]}")).json() == {"purged": 1, "more": False}
    assert is_problem(await client.delete(f"{URL}/{ids[0]}"), 404, "task-not-found")
    some = await client.delete(URL, params={"before": str(NOW + 12), "error": "engine-error"})
    assert some.json() == {"purged": 1, "more": False}
    refused = await client.delete(URL, params={"limit": 1})
    assert is_problem(refused, 422, "invalid-request", "everything")
    rest = await client.delete(URL, params={"limit": 1, "everything": "true"})
    assert rest.json() == {"purged": 1, "more": True}
    left = (await client.get(URL)).json()["dead_letters"]
    assert [letter["task_id"] for letter in left] == ids[3:]
    assert _counted(metrics.DEAD_LETTERS_PURGED) == before + 3


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"since": "yesterday"}, "since"),
        ({"since": "nan"}, "since"),
        ({"since": "1e400"}, "since"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "1-" + "0" * 36}, "cursor"),
        ({"model": "m" * 129}, "model"),
    ],
)
async def test_a_list_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, params: dict[str, str], field: str
) -> None:
    assert is_problem(await client.get(URL, params=params), 422, "invalid-request", field)
    if field != "cursor" and "since" not in params:
        assert is_problem(await client.delete(URL, params=params), 422, "invalid-request", field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", "body"),
        ("[]", "body"),
        ("{}", "body"),
        ('{"task_ids": []}', "task_ids"),
        ('{"task_ids": ["1", "2", "3", "4"]}', "task_ids"),
        ('{"task_ids": [1]}', "task_ids"),
        ('{"task_ids": ["1"], "model": "echo"}', "task_ids"),
        ('{"limit": 0}', "limit"),
        ('{"since": "soon"}', "since"),
        ('{"tenant": "other"}', "tenant"),
    ],
)
async def test_a_redrive_of_many_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, body: str, field: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post(f"{URL}/redrive", content=body, headers=headers)
    assert is_problem(answer, 422, "invalid-request", field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"model_version": 0}', "model_version"),
        ('{"priority": "urgent"}', "priority"),
        ('{"timeout": 0}', "timeout"),
        ('{"data": {}}', "data"),
        ("null", "body"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(
    client: httpx.AsyncClient, history: History, body: str, field: str
) -> None:
    task_id = await failed(history)
    headers = {"content-type": "application/json"}
    answer = await client.post(f"{URL}/{task_id}/redrive", content=body, headers=headers)
    assert is_problem(answer, 422, "invalid-request", field)
    assert len((await client.get(URL)).json()["dead_letters"]) == 1


async def test_unknown_ids_and_callers_are_refused(client: httpx.AsyncClient) -> None:
    for task_id in (new_task_id("echo:1"), "nothing"):
        assert is_problem(await client.get(f"{URL}/{task_id}"), 404, "task-not-found")
        assert is_problem(await client.post(f"{URL}/{task_id}/redrive"), 404, "task-not-found")
    client.headers.pop("authorization")
    for method in ("GET", "DELETE"):
        assert is_problem(await client.request(method, URL), 401, "unauthenticated")


async def test_every_route_and_its_examples_are_documented(client: httpx.AsyncClient) -> None:
    document = (await client.get("/api/openapi.json")).json()
    paths = {path: set(found) for path, found in document["paths"].items() if URL in path}
    assert paths == {
        URL: {"get", "delete"},
        f"{URL}/redrive": {"post"},
        f"{URL}/{{task_id}}": {"get", "delete"},
        f"{URL}/{{task_id}}/redrive": {"post"},
    }
    for path, methods in paths.items():
        for method in methods:
            operation = document["paths"][path][method]
            assert {"401", "404", "422", "503"} <= set(operation["responses"])
            (answer,) = [
                operation["responses"][s] for s in ("200", "202") if s in operation["responses"]
            ]
            content = answer["content"]["application/json"]
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            schema = document["components"]["schemas"][name]
            if "properties" in schema:
                # FastAPI leaves out what is null.
                assert set(content["example"]) <= set(schema["properties"])
    body = document["paths"][f"{URL}/redrive"]["post"]["requestBody"]
    assert body["content"]["application/json"]["example"]


def _counted(counter: Any) -> float:
    return sum(
        float(sample.value)
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )


def test_a_task_tells_what_it_repeats_only_if_it_does() -> None:
    assert b"redrive_of" not in msgspec.json.encode(queued().spec)
