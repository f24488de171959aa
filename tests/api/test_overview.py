"""The live overview: one sampler for all who listen, and none while nobody does."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from inferstack.api import overview
from inferstack.api.health import Check
from inferstack.api.overview import Overview
from inferstack.deployment import ReplicaStatus
from inferstack.queue.statistics import QueueStatistics
from tests.api.fakes import World
from tests.api.test_server import Running

STREAM = b"GET /api/overview/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "PERIOD", 0.02)
    monkeypatch.setattr(overview, "SCRAPE_PERIOD", 0.02)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async def answers() -> None:
        return None

    found = World([Check("queue", answers, essential=True)])
    await found.services.monitor.start()
    yield found
    await found.services.overview.stop()
    await found.services.monitor.stop()


async def events(listener: AsyncIterator[bytes], count: int) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            name, data = (await anext(listener)).decode().strip().split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def samples(watched: Overview) -> bool:
    return watched.sampling


async def ended(watched: Overview) -> None:
    async with asyncio.timeout(10):
        while samples(watched):
            await asyncio.sleep(0.01)


async def test_head_of_the_stream_holds_up_neither_its_connection_nor_the_sampling(
    world: World,
) -> None:
    running = Running(world)
    client = await running.connect()
    client.writer.write(STREAM.replace(b"GET", b"HEAD"))
    async with asyncio.timeout(10):
        head = (await client.reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith("http/1.1 200 ")
    assert "content-type: text/event-stream" in head
    live = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await client.ask(live))[0] == 200
    await ended(world.services.overview)
    await running.stop()


async def test_a_listener_gets_what_was_before_and_then_every_sample(world: World) -> None:
    listener = world.services.overview.listen()
    (first, history), (second, sample) = await events(listener, 2)
    assert (first, history) == ("history", {"points": []})
    assert second == "sample"
    assert sample["status"] == "healthy"
    assert sample["host"] == socket.gethostname()
    assert sample["point"]["queue"] == {
        "high": 1, "normal": 2, "low": 0, "delayed": 0, "running": 4, "outbox": 5,
    }  # fmt: skip
    assert [(d["model"], d["state"]) for d in sample["deployments"]] == [
        ("broken", "failed"),
        ("echo", "ready"),
    ]
    assert sample["deployments"][1]["replicas"][0]["host"] == "host"
    assert sample["devices"] == [
        {"host": "host", "device": "cpu", "replicas": 1, "utilisation": None, "memory_used": None}
    ]
    assert sample["components"][0]["ok"]
    late = world.services.overview.listen()
    [(_, history)] = await events(late, 1)
    assert history["points"]


async def test_all_listeners_share_one_sampler_that_ends_with_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = world.services.overview
    taken = 0
    take = watched._take

    def counted() -> Any:
        nonlocal taken
        taken += 1
        return take()

    monkeypatch.setattr(watched, "_take", counted)
    assert not samples(watched)
    listeners = [watched.listen() for _ in range(50)]
    await asyncio.gather(*(events(listener, 3) for listener in listeners))
    assert taken < 25
    for listener in listeners[1:]:
        await listener.aclose()
    assert samples(watched)
    await listeners[0].aclose()
    assert not samples(watched)
    again = watched.listen()
    assert (await events(again, 2))[1][0] == "sample"


async def test_a_sample_that_cannot_be_taken_is_followed_by_others(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watched = world.services.overview
    take, failures = watched._take, iter([RuntimeError("once"), RuntimeError("twice")])

    def moody() -> Any:
        for failure in failures:
            raise failure
        return take()

    monkeypatch.setattr(watched, "_take", moody)
    assert (await events(watched.listen(), 2))[1][0] == "sample"
    assert caplog.text.count("cannot take a sample") == 2


async def test_rates_are_exact_by_the_clock_of_redis(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    echo = world.tasks.statistics()["echo:1"]
    now: dict[str, QueueStatistics] = {"echo:1": msgspec.structs.replace(echo, at=100.0)}
    monkeypatch.setattr(world.tasks, "statistics", lambda: now)
    listener = world.services.overview.listen()
    await events(listener, 2)
    now = {"echo:1": msgspec.structs.replace(echo, at=104.0, completed=echo.completed + 10)}
    samples = await events(listener, 3)
    assert samples[-1][1]["point"]["rates"] == {"completed": 2.5, "failed": 0.0, "expired": 0.0}
    assert samples[-1][1]["deployments"][1]["rates"]["completed"] == 2.5


async def test_a_stream_ends_after_a_while_so_that_credentials_are_checked_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "LIFETIME", 0.1)
    async with asyncio.timeout(10):
        names = [event.split(b"\n")[0] async for event in world.services.overview.listen()]
    assert names[0] == b"event: history"
    assert set(names[1:]) == {b"event: sample"}
    assert not world.services.overview.sampling


async def test_a_client_that_goes_ends_the_sampling(world: World) -> None:
    running = Running(world)
    client = await running.connect()
    client.writer.write(STREAM)
    async with asyncio.timeout(10):
        head = await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readuntil(b"event: sample")
    assert b"text/event-stream" in head
    assert b"cache-control: no-store" in head
    assert world.services.overview.sampling
    client.writer.close()
    await ended(world.services.overview)
    await running.stop()


async def test_a_drain_ends_the_streams_at_once(world: World) -> None:
    running = Running(world)
    client = await running.connect()
    client.writer.write(STREAM)
    async with asyncio.timeout(10):
        await client.reader.readuntil(b"event: sample")
        await running.stop()
    assert not world.services.overview.sampling


async def test_only_callers_may_listen() -> None:
    world = World(auth_required=True)
    transport = httpx.ASGITransport(app=world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        refused = await client.get("/api/overview/stream")
    assert refused.status_code == 401
    assert not world.services.overview.sampling


async def test_what_replicas_computed_shows_wherever_they_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their heartbeats: this process sees no metrics of theirs."""
    echo = world.tasks.statistics()["echo:1"]
    (idle,) = echo.replicas
    other = msgspec.structs.replace(idle, worker="elsewhere:2:def", batches=7, tasks=9, computed=1)

    def at(seconds: float, *replicas: ReplicaStatus) -> dict[str, QueueStatistics]:
        return {"echo:1": msgspec.structs.replace(echo, at=seconds, replicas=[*replicas])}

    now = at(100.0, idle, other)
    monkeypatch.setattr(world.tasks, "statistics", lambda: now)
    listener = world.services.overview.listen()
    (_, _), (_, sample) = await events(listener, 2)
    shown = sample["deployments"][1]
    assert (shown["batch_size"], shown["batch_ms"]) == (None, None)
    assert [replica["busy"] for replica in shown["replicas"]] == [None, None]
    worked = msgspec.structs.replace(other, batches=11, tasks=29, computed=3.0)
    now = at(104.0, idle, worked)
    shown = (await events(listener, 3))[-1][1]["deployments"][1]
    assert (shown["batch_size"], shown["batch_ms"]) == (5.0, 500.0)
    assert [replica["busy"] for replica in shown["replicas"]] == [0.0, 0.5]
    now = at(120.0, worked)
    await events(listener, 3)
    now = at(150.5, worked)
    shown = (await events(listener, 3))[-1][1]["deployments"][1]
    assert (shown["batch_size"], len(shown["replicas"])) == (None, 1)
