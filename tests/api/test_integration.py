"""The API over a real Redis and a real PostgreSQL; only the model is pretended."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from inferstack.api import overview
from inferstack.config import Settings
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Failure, Retry
from inferstack.storage.accounts import Accounts
from inferstack.storage.database import Database
from inferstack.storage.objects import ObjectStore
from inferstack.task import Execution, TaskError
from tests.api.real import replica, serving
from tests.services import RedisServer

URL = "/api/inference"
PASSWORD = "correct horse battery"


@pytest.fixture
def settings(clean_redis_url: str, clean_postgres_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=clean_redis_url,
        database_url=clean_postgres_url,
        secret_key="a secret of thirty-two characters",
        auth_required=True,
        admin_password=PASSWORD,
        default_model="echo",
        inferstack_home=tmp_path,
        model_path=tmp_path,
    )


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings) as found:
        login = {"username": "admin", "password": PASSWORD}
        async with asyncio.timeout(10):
            while (answer := await found.post("/api/auth/login", json=login)).status_code != 200:
                await asyncio.sleep(0.05)
        found.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
        yield found


async def test_a_task_is_submitted_run_and_read(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    async with replica(settings):
        data = {"text": "hello"}
        done = await client.post(URL, json={"data": data}, headers={"prefer": "wait=10"})
        assert done.status_code == 200, done.text
        assert done.json()["status"] == "completed"
        assert done.json()["result"] == data
        read = await client.get(f"{URL}/{done.json()['task_id']}")
        assert read.json()["result"] == data
        large = {"text": "x" * 200_000}
        done = await client.post(URL, json={"data": large}, headers={"prefer": "wait=10"})
        assert done.json()["result"] == large


async def test_a_task_waits_is_polled_and_cancelled(client: httpx.AsyncClient) -> None:
    receipt = await client.post(URL, json={"data": {}}, headers={"prefer": "wait=0.1"})
    assert receipt.status_code == 202
    assert receipt.json()["queue_position"] == 1
    path = receipt.headers["location"]
    assert (await client.get(path, params={"wait": 0.05})).json()["status"] == "queued"
    assert (await client.delete(path)).json()["status"] == "cancelled"
    assert (await client.get(path)).json()["status"] == "cancelled"


async def test_an_idempotency_key_gives_the_first_task_again(client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "order-17"}
    first = await client.post(URL, json={"data": {"n": 1}}, headers=headers)
    again = await client.post(URL, json={"data": {"n": 1}}, headers=headers)
    other = await client.post(URL, json={"data": {"n": 2}}, headers=headers)
    assert first.json()["task_id"] == again.json()["task_id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert other.status_code == 422
    assert other.json()["type"].endswith("/idempotency-mismatch")


async def test_tenants_do_not_see_each_other(client: httpx.AsyncClient, settings: Settings) -> None:
    database = Database(str(settings.database_url))
    await Accounts(database).create_user("ann", PASSWORD, tenant="acme")
    await database.close()
    login = {"username": "ann", "password": PASSWORD}
    token = (await client.post("/api/auth/login", data=login)).json()["access_token"]
    ann = {"authorization": f"Bearer {token}"}
    path = (await client.post(URL, json={"data": {}})).headers["location"]
    assert (await client.get(path)).status_code == 200
    assert (await client.get(path, headers=ann)).status_code == 404
    assert (await client.delete(path, headers=ann)).status_code == 404
    made = await client.post("/api/auth/keys", json={"name": "job"}, headers=ann)
    key = {"authorization": "", "x-api-key": made.json()["key"]}
    mine = (await client.post(URL, json={"data": {}}, headers=key)).headers["location"]
    assert (await client.get(mine, headers=ann)).status_code == 200
    url = f"/api/auth/keys/{made.json()['id']}"
    assert (await client.delete(url, headers=ann)).status_code == 204
    assert (await client.get(mine, headers=key)).status_code == 401


async def test_a_batch_goes_in_whole(client: httpx.AsyncClient) -> None:
    items = [{"data": {"n": n}} for n in range(999)] + [{"data": {}, "model": "nope"}]
    body = (await client.post(f"{URL}/batch", json=items)).json()
    assert [item["status"] for item in body] == ["queued"] * 999 + [404]
    assert len({item["task_id"] for item in body[:-1]}) == 999


async def test_health_models_and_metrics_tell_of_the_real_services(
    client: httpx.AsyncClient,
) -> None:
    detailed = (await client.get("/health/detailed")).json()
    assert detailed["status"] == "healthy"
    assert {c["name"]: c["ok"] for c in detailed["components"]} == {
        "queue": True,
        "database": True,
        "objects": True,
    }
    models = (await client.get("/api/models")).json()["models"]
    assert [(m["model"], m["state"]) for m in models] == [("echo", "ready")]
    text = (await client.get("/metrics")).text
    ready = r'inferstack_deployment_ready\{process="api-\d+",model="echo",version="1"\} 1\.0'
    assert re.search(ready, text)
    assert (await client.get(URL)).json() == {"tasks": [], "next_cursor": None}


async def circuit(client: httpx.AsyncClient) -> dict[str, Any]:
    """What each place that shows a circuit says of it now."""
    detailed = (await client.get("/health/detailed")).json()
    models = (await client.get("/api/models")).json()
    stream = (await client.get("/api/overview/stream")).text
    sample = json.loads(stream.split("event: sample\ndata: ")[1].split("\n")[0])
    metrics = (await client.get("/metrics")).text
    name = r'\{process="api-\d+",model="echo",version="1"\} (\S+)'
    return {
        "health": [each["circuit"] for each in detailed["deployments"]],
        "models": [each["circuit"] for each in models["models"]],
        "overview": [each["circuit"] for each in sample["deployments"]],
        "gauge": re.findall(f"^inferstack_circuit_open{name}", metrics, re.MULTILINE),
        "opened": re.findall(f"^inferstack_circuit_opened_total{name}", metrics, re.MULTILINE),
    }


async def shown(client: httpx.AsyncClient, word: str, gauge: str, opened: str) -> None:
    """Returns once every place shows this; they share what the process looks up each second."""
    wanted = {place: [word] for place in ("health", "models", "overview")}
    async with asyncio.timeout(10):
        while (found := await circuit(client)) != wanted | {"gauge": [gauge], "opened": [opened]}:
            print(found)
            await asyncio.sleep(0.05)


async def test_a_circuit_is_shown_open_half_open_and_closed_wherever_one_looks(
    client: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LIFETIME", 0.001)  # one sample and the stream ends
    await shown(client, "closed", "0.0", "0.0")
    redis = connect(str(settings.redis_url))
    queue = TaskQueue(redis, "echo:1", settings)
    await client.post(f"{URL}/batch", json=[{"data": {}}] * settings.breaker_volume)
    error, run = encode(TaskError("engine-error", "boom", retryable=True)), encode(Execution("w"))
    await queue.fail(
        "w",
        [
            Failure(claim.task_id, claim.attempt, Retry.FINAL, 0.0, error, run)
            for claim in await queue.claim("w", settings.breaker_volume)
        ],
    )
    await shown(client, "open", "1.0", "1.0")
    refused = await client.post(URL, json={"data": {}})
    assert refused.status_code == 503
    assert refused.json()["type"].endswith("/circuit-open")
    assert int(refused.headers["retry-after"]) >= 1

    # The test moves the moment, not the clock.
    await redis.hset("is:{echo:1}:breaker", "until", 1)
    await redis.aclose()
    await shown(client, "half-open", "0.5", "1.0")
    async with replica(settings):
        probe = await client.post(URL, json={"data": {}}, headers={"prefer": "wait=10"})
        assert probe.json()["status"] == "completed"
        await shown(client, "closed", "0.0", "1.0")


async def test_a_task_tells_its_place_and_what_was_asked_for(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    large = {"text": "x" * 200_000}
    asked = {"data": large, "priority": "low", "timeout": 30.0, "metadata": {"n": 1}}
    paths = [(await client.post(URL, json=asked)).headers["location"] for _ in range(2)]
    high = (await client.post(URL, json={"data": {}, "priority": "high"})).headers["location"]
    places = [(await client.get(f"{path}/position")).json() for path in (*paths, high)]
    assert [place["queue_position"] for place in places] == [2, 3, 1]
    assert places[1]["estimated_wait_time"] > places[0]["estimated_wait_time"] > 0
    again = (await client.get(f"{paths[0]}/request")).json()
    assert again == asked | {"model": "echo", "model_version": 1}
    assert (await client.post(URL, json=again)).status_code == 202

    await client.delete(paths[0])
    gone = {"status": "cancelled", "queue_position": None, "estimated_wait_time": None}
    assert (await client.get(f"{paths[0]}/position")).json() == gone
    assert (await client.get(f"{paths[1]}/position")).json()["queue_position"] == 2
    await ObjectStore.from_settings(settings).delete([f"tasks/{paths[0][-36:]}/input.json"])
    lost = await client.get(f"{paths[0]}/request")
    assert lost.status_code == 409
    assert lost.json()["detail"] == "the input of this task was not kept"


async def test_while_redis_refuses_the_password_it_is_503(settings: Settings) -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as operator:
        changed = settings.model_copy(update={"redis_url": server.url, "auth_required": False})
        async with serving(changed) as client:
            assert (await client.post(URL, json={"data": {}})).status_code == 202
            operator.config_set("requirepass", "rotated")
            operator.client_kill_filter(_type="normal", skipme=True)
            refused = await client.post(URL, json={"data": {}})
            assert refused.status_code == 503, refused.text
            assert int(refused.headers["retry-after"]) >= 1
            assert "invalid" not in refused.json()["detail"]
            operator.config_set("requirepass", "")
            assert (await client.post(URL, json={"data": {}})).status_code == 202
