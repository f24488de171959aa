"""What takes long: streams, WebSockets, waits; and what the gateway says of who calls."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.gateway.gateway import Gateway
from tests.gateway.upstream import EVENT, Upstream

pytestmark = pytest.mark.timeout(30)

Headers = dict[str, str]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Stands for the API, which cannot be made to stream at will."""
    found = Upstream()
    async with found.running():
        yield found


@pytest.mark.parametrize(
    ("method", "path", "extra"),
    [
        ("GET", "/api/inference/019b8d7d-f237-76a8-9c52-5b0f3f0c8f11/events", ""),
        ("GET", "/api/overview/stream", ""),
        ("POST", "/v1/chat/completions", ""),
        ("POST", "/v2/models/echo/generate_stream", ""),
        ("GET", "/api/elsewhere", "x-accel-buffering: no\r\n"),
    ],
)
async def test_an_event_arrives_before_the_stream_goes_on(
    upstream: Upstream, method: str, path: str, extra: str
) -> None:
    upstream.extra = extra
    with Gateway(upstream.address) as gateway:
        async with (
            gateway.client() as client,
            client.stream(method, path) as answer,
        ):
            assert answer.headers["content-type"] == "text/event-stream"
            chunks = answer.aiter_raw()
            assert await anext(chunks) == EVENT
            upstream.go_on.set()
            assert await anext(chunks) == EVENT


async def test_a_websocket_passes_in_both_directions(upstream: Upstream) -> None:
    with Gateway(upstream.address) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /api/ws HTTP/1.1\r\nHost: x\r\n")
        writer.write(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101")
        for frame in (b"\x81\x02hi", b"\x81\x03you"):
            writer.write(frame)
            assert await asyncio.wait_for(reader.readexactly(len(frame)), 10) == frame
        writer.close()
        await writer.wait_closed()


async def test_no_other_protocol_is_offered_to_the_api(upstream: Upstream) -> None:
    upstream.go_on.set()
    offer = {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAA"}
    with Gateway(upstream.address) as gateway:
        async with gateway.client() as client:
            assert (await client.get("/api/x", headers=offer)).status_code == 200
    (head,) = upstream.heads
    assert "\r\nupgrade:" not in head
    assert "\r\nconnection:" not in head


@pytest.mark.parametrize(
    ("trusted", "client"), [({}, "127.0.0.1"), ({"GATEWAY_TRUSTED_PROXIES": "127.0.0.0/8"}, None)]
)
async def test_the_api_is_told_the_address_that_can_be_trusted(
    upstream: Upstream, trusted: dict[str, object], client: str | None
) -> None:
    upstream.go_on.set()
    said = {"x-forwarded-for": "198.51.100.1, 203.0.113.9", "forwarded": "for=198.51.100.1"}
    with Gateway(upstream.address, **trusted) as gateway:
        async with gateway.client() as http:
            await http.get("/api/x", headers=said | {"x-request-id": "one"})
        line = gateway.logged("one")
    (head,) = upstream.heads
    # The nearest one that no proxy of ours has: what stands before it anybody can write.
    expected = client or "203.0.113.9"
    assert f"\r\nx-forwarded-for: {expected}\r\n" in head
    assert "\r\nforwarded:" not in head
    assert "\r\nx-forwarded-proto: http\r\n" in head
    assert line["client"] == expected


async def test_a_caller_can_wait_for_a_task(gateway: Gateway, caller: Headers) -> None:
    async with gateway.client() as client:
        answer = await client.post(
            "/api/inference",
            json={"data": {"payload": "slow", "sleep_ms": 700}},
            headers=caller | {"prefer": "wait=20"},
        )
    assert answer.status_code == 200
    assert answer.json()["result"]["payload"] == "slow"
    assert answer.headers["preference-applied"] == "wait=20"
