"""Between the API and Redis everything may go wrong: a submit is one task, never two."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from inferstack.client import AsyncClient
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import PATIENT, Ledger
from tests.faults.proxy import Mode, Proxy
from tests.services import free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Its API process reaches Redis through a proxy, the others directly."""
    running = Cluster()
    running.api.env["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    with running:
        yield running
        print(running.log("api")[-6000:])


def proxy(cluster: Cluster) -> Proxy:
    port = int(cluster.api.env["REDIS_URL"].rsplit(":", 1)[1].split("/")[0])
    return Proxy(port, cluster.redis.port)


def body(data: dict[str, Any]) -> dict[str, object]:
    return {"data": data, "model": MODEL, "timeout": 600}


async def test_a_dropped_reply_is_asked_for_again_and_makes_one_task(cluster: Cluster) -> None:
    ledger = Ledger(MODEL)
    async with proxy(cluster) as network, cluster.kept(), cluster.http() as http:
        for _ in range(10):
            data = ledger.intend()
            network.mode = Mode.DROP
            # No key: nothing but the task id can tell that the repeat is one.
            sending = asyncio.create_task(http.post("/api/inference", json=body(data)))
            before = network.dropped
            await until(lambda before=before: _dropped(network, before))  # type: ignore[misc]
            network.mode = Mode.PASS
            note(ledger, data, await sending)
            ledger.tally.faults += 1
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    assert len(ledger.accepted) >= 8, "most repeats are answered"


async def _dropped(network: Proxy, before: int) -> bool:
    return network.dropped > before


@pytest.mark.parametrize("mode", [Mode.BLACKHOLE, Mode.RESET])
async def test_a_broken_network_is_503_with_the_task_id_and_heals(
    cluster: Cluster, mode: Mode
) -> None:
    ledger = Ledger(MODEL)
    async with proxy(cluster) as network, cluster.kept(), cluster.http() as http:
        network.mode = mode
        if mode is Mode.RESET:
            network.reset()
        inputs = [ledger.intend() for _ in range(8)]
        answers = await asyncio.gather(
            *(http.post("/api/inference", json=body(data)) for data in inputs)
        )
        ledger.tally.faults += 1
        for data, answer in zip(inputs, answers, strict=True):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["task_id"]
            note(ledger, data, answer)
        network.mode = Mode.PASS
        network.reset()
        await cluster.ready()
        for answer in answers:
            # It exists or not; whoever asks is told which.
            found = await http.get(f"/api/inference/{answer.json()['task_id']}")
            assert found.status_code in (200, 404)
        async with AsyncClient(cluster.url, retries=PATIENT) as client:
            ledger.see(await client.wait(str(await ledger.submit(client)), timeout=30))
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)


async def test_a_network_that_fails_under_load_loses_and_doubles_nothing(
    cluster: Cluster, seed: int
) -> None:
    ledger = Ledger(MODEL)
    async with proxy(cluster) as network, cluster.kept():
        load = asyncio.create_task(ledger.load(cluster.url, tasks=200, sleep_ms=5, seed=seed))
        for mode in (Mode.DROP, Mode.RESET, Mode.DROP, Mode.BLACKHOLE):
            before = len(ledger.accepted)
            await until(lambda before=before: _more(ledger, before))  # type: ignore[misc]
            network.mode = mode
            ledger.tally.faults += 1
            await asyncio.sleep(0.5)  # how long the network is bad
            network.mode = Mode.PASS
            network.reset()
        await load
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    assert not ledger.refused
    assert len(ledger.accepted) == 200


async def _more(ledger: Ledger, before: int) -> bool:
    return len(ledger.accepted) >= min(before + 10, 200)


async def test_a_hundred_submits_at_once_under_one_key_are_one_task(cluster: Cluster) -> None:
    ledger = Ledger(MODEL)
    async with proxy(cluster), cluster.kept(), cluster.http() as http:
        data, key = ledger.intend(), {"idempotency-key": uuid4().hex}
        ledger.tally.faults += 1
        answers = await asyncio.gather(
            *(http.post("/api/inference", json=body(data), headers=key) for _ in range(100))
        )
        assert {answer.status_code for answer in answers} <= {200, 202}
        for answer in answers:
            note(ledger, data, answer)
        assert len(ledger.accepted) == 1
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)


def note(ledger: Ledger, data: dict[str, Any], answer: httpx.Response) -> None:
    """Notes an answer to a submit without the SDK."""
    if answer.status_code in (200, 202):
        ledger.hear(data["payload"], answer.status_code, answer.content)
    else:
        assert answer.status_code == 503
