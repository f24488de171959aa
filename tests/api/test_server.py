"""The server over real sockets: both ways through it, slow clients, the drain."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from inferstack.api import connection, edge, protocol, server
from inferstack.api.connection import ARRIVAL
from inferstack.api.listener import bind
from inferstack.api.server import Server
from inferstack.concurrency import unread
from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from tests.api.fakes import World
from tests.services import free_port

BODY = b'{"data": {"text": "hello"}}'
POST = b"POST /api/inference HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SUBMIT = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
READY = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAITED = SUBMIT.replace(b"Host:", b"Prefer: wait=5\r\nHost:")


class Running:
    """A server in this event loop."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = free_port()
        settings = world.settings.model_copy(update={"port": self.port})
        self.server = Server(world.edge)
        self.task = asyncio.create_task(self.server.serve(sockets=[bind(settings)]))
        self.clients: list[Connection] = []

    async def connect(self) -> "Connection":
        while not self.server.started:
            await asyncio.sleep(0.01)
        self.clients.append(Connection(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def stop(self) -> None:
        self.server.should_exit = True
        await self.task
        for client in self.clients:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()


class Connection:
    """One client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(request)
        return await self.read()

    def send_now(self, data: bytes) -> None:
        """Without a turn of the loop, so that the server cannot have read it."""
        fileno = self.writer.get_extra_info("socket").fileno()
        assert os.write(fileno, data) == len(data)

    def ends_now(self) -> bool:
        """Whether the end has arrived, which the loop cannot have seen yet."""
        return unread(self.writer.transport)

    async def read(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def ended(self) -> bool:
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read() == b""
        return True


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    found = Running(World(max_body_bytes=100_000))
    yield found
    await found.stop()


async def test_a_connection_serves_many_requests(running: Running) -> None:
    client = await running.connect()
    for n in range(3):
        status, headers, body = await client.ask(SUBMIT)
        assert status == 202
        assert headers["date"]
        assert headers["cache-control"] == "no-store"
        path = headers["location"].encode()
        assert json.loads(body)["status"] == "queued", n
        status, _, body = await client.ask(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        assert status == 401, "the host is not local"
        status, _, _ = await client.ask(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        assert status == 200
        assert (await client.ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 200


async def test_large_bodies_that_arrive_slowly_are_bounded_together(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "ARRIVING", 180_000)
    body = b'{"data": {"text": "%b"}}' % (b"x" * 90_000)
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    first, second, third = [await running.connect() for _ in range(3)]
    for client in (first, second):
        client.writer.write(head + body[:70_000])
    async with asyncio.timeout(10):
        while running.world.edge._arriving < 140_000:
            await asyncio.sleep(0.01)
    status, headers, answer = await third.ask(head + body[:70_000])
    assert status == 503
    assert int(headers["retry-after"]) >= 1
    assert json.loads(answer)["type"].endswith("/bodies-busy")
    assert (await first.ask(body[70_000:]))[0] == 202
    second.writer.close()
    async with asyncio.timeout(10):
        while running.world.edge._arriving:
            await asyncio.sleep(0.01)
    assert (await first.ask(head + body))[0] == 202


async def test_a_request_in_small_pieces_is_understood(running: Running) -> None:
    client = await running.connect()
    for n in range(len(SUBMIT) - 1):
        client.writer.write(SUBMIT[n : n + 1])
        await client.writer.drain()
        if n % 10 == 0:
            await asyncio.sleep(0)
    assert (await client.ask(SUBMIT[-1:]))[0] == 202


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1b\r\n" + BODY + b"\r\n0\r\n\r\n", 202),
        (SUBMIT.replace(b"HTTP/1.1", b"HTTP/1.0"), 202),
        (SUBMIT.replace(b"/api/inference", b"/api/%69nference"), 202),
        (SUBMIT.replace(b"POST", b"PUT"), 405),
        (POST + b"Content-Length: 100001\r\n\r\n", 413),
        (POST + b"Content-Length: 100001\r\n\r\n" + b" " * 100_001, 413),
        (
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n%b\r\n" % (b" " * 65535) * 3,
            413,
        ),
        (POST + b"\r\n", 422),
        (SUBMIT.replace(b"application/json", b"text/plain"), 415),
        (POST + b"Content-Length: 1\r\n\r\n{", 422),
    ],
)
async def test_every_shape_of_request_gets_its_answer(
    running: Running, request_: bytes, status: int
) -> None:
    client = await running.connect()
    assert (await client.ask(request_))[0] == status
    # and the server goes on
    assert (await (await running.connect()).ask(SUBMIT))[0] == 202


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"Content-Length: x\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (SUBMIT.replace(b"\r\n", b"\n"), 400),
        (SUBMIT.replace(b"POST", b"BREW"), 400),
        (SUBMIT.replace(b"localhost", b"local\0host"), 400),
        (SUBMIT.replace(b"Host:", b"Host: other\r\nHost:"), 400),
        (CHUNKED + b"nonsense\r\n", 400),
        (CHUNKED + b"1b\r\n" + BODY + b"nonsense", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (SUBMIT.replace(b"/api", b"/" + b"a" * 9000), 414),
        (b"GET /" + b"a" * 500_000, 414),
        (SUBMIT.replace(b"Host:", b"X: %b\r\nHost:" % (b"x" * 66_000)), 431),
        (SUBMIT.replace(b"Host:", b"X: y\r\n" * 260 + b"Host:"), 431),
        (POST + b"X: " + b"x" * 1_000_000, 431),
        (POST + b"X: y\r\n" * 100_000, 431),
        (CHUNKED + b"1b\r\n" + BODY + b"\r\n0\r\nX: " + b"x" * 1_000_000, 431),
        (CHUNKED + b"1b\r\n" + BODY + b"\r\n0\r\n" + b"X: y\r\n" * 100_000, 431),
        (CHUNKED + b"1b;x=" + b"x" * 1_000_000, 431),
        (b"\r\n" * 1_000_000, 431),
    ],
)
async def test_what_is_no_fit_request_gets_problem_details(
    running: Running, request_: bytes, status: int
) -> None:
    client = await running.connect()
    answered, headers, body = await client.ask(request_)
    assert (answered, headers["connection"]) == (status, "close")
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-request-id"]
    assert json.loads(body)["status"] == status
    assert await client.ended()
    # and the server goes on
    assert (await (await running.connect()).ask(SUBMIT))[0] == 202


@pytest.mark.parametrize("path", [b"/api/inference", b"/api/auth/login"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_in_many_pieces_is_not_taken_for_what_is_around_it(
    running: Running, path: bytes, chunked: bool
) -> None:
    client = await running.connect()
    body = BODY + b" " * 90_000
    head, end = b"Content-Length: %d\r\n\r\n" % len(body), b""
    if chunked:
        head, end = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body), b"\r\n0\r\n\r\n"
    client.writer.write(POST.replace(b"/api/inference", path) + head)
    for start in range(0, 90_000, 10_000):
        client.writer.write(body[start : start + 10_000])
        async with asyncio.timeout(10):
            while running.world.edge._arriving < start + 10_000:
                await asyncio.sleep(0)
    status, headers, _ = await client.ask(body[90_000:] + end)
    assert status == (202 if path == b"/api/inference" else 422)
    assert "connection" not in headers


async def test_who_is_refused_before_the_end_of_its_body_can_read_that(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "LINGER", 60.0)
    size = 20_000_000  # More than the buffers on the way hold.
    client = await running.connect()
    client.writer.write(POST + b"Content-Length: %d\r\n\r\n" % size + b" " * size)
    async with asyncio.timeout(10):
        await client.writer.drain()
    status, headers, _ = await client.read()
    assert (status, headers["connection"]) == (413, "close")
    assert await client.ended()


CHUNK = b"fffff\r\n%b\r\n" % (b" " * 0xFFFFF)


@pytest.mark.parametrize(
    ("begin", "more"),
    [(b"", b""), (b"", CHUNK), (b"", b"nonsense"), (b"0\r\nX: ", b"x" * 65_536)],
    ids=["nothing", "body", "nonsense", "trailer"],
)
async def test_who_was_refused_before_the_end_of_its_body_is_cut_off(
    running: Running, monkeypatch: pytest.MonkeyPatch, begin: bytes, more: bytes
) -> None:
    """Whatever it goes on to send, and it gets no second answer."""
    monkeypatch.setattr(edge, "LINGER", 0.5)
    monkeypatch.setattr(connection, "LINGER", 0.1)
    client = await running.connect()
    status, headers, _ = await client.ask(CHUNKED + CHUNK)
    assert (status, headers["connection"]) == (413, "close")
    client.writer.write(begin)
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while running.server.server_state.connections:
                client.writer.write(more)
                await client.writer.drain()
                await asyncio.sleep(0.01)
    assert await client.ended()


async def test_a_request_before_nonsense_is_still_answered(running: Running) -> None:
    running.world.tasks.delay = 0.1
    client = await running.connect()
    status, headers, _ = await client.ask(WAITED + b"nonsense\r\n\r\n")
    assert (status, headers["connection"]) == (200, "close")
    assert await client.ended()


async def test_many_headers_within_the_limits_are_taken(running: Running) -> None:
    client = await running.connect()
    many = SUBMIT.replace(b"Host:", b"X: %b\r\n" % (b"y" * 200) * 240 + b"Host:")
    assert (await client.ask(many))[0] == 202
    assert (await client.ask(many + SUBMIT))[0] == 202
    assert (await client.read())[0] == 202


@pytest.mark.parametrize("protocol", [b"h2c", b"something/1", b"websocket"])
@pytest.mark.parametrize("cut", [0, 20, len(BODY)])
async def test_an_offer_of_another_protocol_is_ignored(
    running: Running, protocol: bytes, cut: int
) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\nHTTP2-Settings: AAMA\r\n"
    request = SUBMIT.replace(b"Content-Type", offer % protocol + b"Content-Type")
    client = await running.connect()
    client.writer.write(request[: len(request) - cut])
    await asyncio.sleep(0.05)
    status, headers, _ = await client.ask(request[len(request) - cut :])
    assert status == 202
    assert "connection" not in headers
    assert (await client.ask(SUBMIT))[0] == 202


@pytest.mark.parametrize("body", [b"", BODY])
async def test_a_websocket_that_nobody_speaks_is_404(running: Running, body: bytes) -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    offer += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: %d\r\n\r\n"
    client = await running.connect()
    head = b"GET /api/ws HTTP/1.1\r\nHost: localhost\r\n" + offer % len(body)
    status, headers, _ = await client.ask(head + body)
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert (await client.ask(SUBMIT))[0] == 202


async def test_head_is_answered_like_get_without_a_body(running: Running) -> None:
    client = await running.connect()
    path = (await client.ask(SUBMIT))[1]["location"]
    for target in (path, "/api/inference", "/health/live", "/metrics", "/nope"):
        request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target.encode()
        status, headers, _ = await client.ask(request)
        client.writer.write(request.replace(b"GET", b"HEAD"))
        async with asyncio.timeout(10):
            head = (await client.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith(f"http/1.1 {status} ")
        assert f"content-type: {headers['content-type']}\r\n" in head
        assert "content-length: " in head


async def test_what_follows_a_chunked_body_is_no_header(running: Running) -> None:
    client = await running.connect()
    body = b"1b\r\n" + BODY + b"\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    assert (await client.ask(CHUNKED + body))[0] == 202
    listed = CHUNKED.replace(b"/inference", b"/inference/batch")
    body = b"1d\r\n[" + BODY + b"]\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    assert (await client.ask(listed + body))[0] == 200


async def test_a_client_that_expects_100_is_told_to_continue(running: Running) -> None:
    client = await running.connect()
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    client.writer.write(head)
    assert b"100 Continue" in await client.reader.readuntil(b"\r\n\r\n")
    assert (await client.ask(BODY))[0] == 202


async def test_pipelined_requests_are_answered_in_order(running: Running) -> None:
    running.world.tasks.delay = 0.05
    client = await running.connect()
    health = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    client.writer.write(WAITED + SUBMIT + health + WAITED)
    answers = [await client.read() for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 202, 200, 200]
    assert b'"healthy"' in answers[2][2]
    assert (await client.ask(SUBMIT))[0] == 202


async def test_a_client_that_asks_for_close_gets_it(running: Running) -> None:
    client = await running.connect()
    status, headers, _ = await client.ask(SUBMIT.replace(b"Host:", b"Connection: close\r\nHost:"))
    assert (status, headers["connection"]) == (202, "close")
    assert await client.ended()


async def test_a_client_that_leaves_disturbs_nobody(running: Running) -> None:
    running.world.tasks.delay = 0.05
    client = await running.connect()
    client.writer.write(WAITED)
    await asyncio.sleep(0.02)
    client.writer.transport.abort()
    assert (await (await running.connect()).ask(WAITED))[0] == 200


@pytest.mark.parametrize("way", [b"", b"Upgrade: h2c\r\n"], ids=["direct", "asgi"])
@pytest.mark.parametrize("asked", [True, False])
async def test_who_asked_for_it_is_known_to_have_left(
    running: Running, asked: bool, way: bytes
) -> None:
    running.world.tasks.delay = 5.0
    client = await running.connect()
    body = json.dumps({"data": {}, "cancel_on_disconnect": asked}).encode()
    head = POST.replace(b"Host:", way + b"Prefer: wait=60\r\nHost:")
    client.writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    async with asyncio.timeout(10):
        while not running.world.tasks.departures:
            await asyncio.sleep(0.01)
        (departure,) = running.world.tasks.departures
        client.writer.close()
        while departure is not None and not departure.gone:
            await asyncio.sleep(0.01)
    assert asked == (departure is not None)
    running.world.tasks.cut.set()


async def test_both_ways_give_the_same_answer(running: Running) -> None:
    client = await running.connect()
    direct = await client.ask(WAITED)
    asgi = await client.ask(WAITED.replace(b"/api/inference", b"/api/inferenc%65"))
    assert direct[0] == asgi[0] == 200
    assert direct[1].keys() == asgi[1].keys()
    known = [json.loads(answer[2]) for answer in (direct, asgi)]
    for body in known:
        body.pop("task_id")
    assert known[0] == known[1]


@pytest.mark.parametrize(
    ("stage", "sent"),
    [("idle", b""), ("head", POST), ("idle", SUBMIT), ("body", SUBMIT[:-5]), ("body", None)],
    ids=["nothing", "half-a-head", "between-requests", "half-a-body", "half-a-cold-body"],
)
async def test_a_client_that_is_too_slow_is_cut_off(
    running: Running, monkeypatch: pytest.MonkeyPatch, stage: str, sent: bytes | None
) -> None:
    monkeypatch.setitem(protocol.DEADLINES, stage, 0.1)
    client = await running.connect()
    if sent is None:
        sent = POST.replace(b"inference", b"auth/login") + b"Content-Length: 9\r\n\r\n{"
    client.writer.write(sent)
    if sent == SUBMIT:
        await client.read()
    if sent == SUBMIT[:-5]:
        status, headers, body = await client.read()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body)["type"].endswith("/request-timeout")
    assert await client.ended()


async def test_an_idle_client_that_does_not_read_its_answer_is_cut_off(running: Running) -> None:
    client, served = await connected(running)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    while not served.transport.get_write_buffer_size():
        served.transport.write(b"x" * 65_536)
        await asyncio.sleep(0)
    assert served.cut_off("idle")
    async with asyncio.timeout(10):
        while running.server.server_state.connections:
            await asyncio.sleep(0.01)


async def test_an_idle_connection_stays_open_for_as_long_after_every_kind_of_answer(
    running: Running,
) -> None:
    """Or the API would close it under a POST that a gateway sends, which may not send it again."""
    client = await running.connect()
    assert (await client.ask(READY))[0] == 200
    (connection,) = running.server.server_state.connections
    assert isinstance(connection, protocol.DirectProtocol)
    timer = connection.timeout_keep_alive_task
    assert timer is not None
    left = timer.when() - asyncio.get_running_loop().time()
    assert left > protocol.DEADLINES["idle"] - 5


async def test_a_slow_body_is_told_so_when_there_is_still_somebody_to_tell(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.api.edge.READ_DEADLINE", 0.05)
    client = await running.connect()
    head = POST.replace(b"inference", b"auth/login") + b"Content-Length: 9\r\n\r\n{"
    status, headers, body = await client.ask(head)
    assert (status, headers["connection"]) == (408, "close")
    assert json.loads(body)["type"].endswith("/request-timeout")


async def test_a_drain_answers_what_is_in_flight() -> None:
    running = Running(World())
    running.world.tasks.delay = 0.3
    client, idle = await running.connect(), await running.connect()
    client.writer.write(WAITED)
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(running.stop())
    status, headers, _ = await client.read()
    assert (status, headers["connection"]) == (200, "close")
    await stopping
    assert await idle.ended()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_after_sigterm_requests_are_taken_and_answers_close_their_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "FAREWELL", 1.0)
    running = Running(World())
    kept, idle = await running.connect(), await running.connect()
    assert "connection" not in (await kept.ask(SUBMIT))[1]
    began = time.monotonic()
    running.server.handle_exit(signal.SIGTERM, None)
    while not running.world.edge.leaving:
        await asyncio.sleep(0.01)
    for client in (kept, await running.connect()):
        status, headers, _ = await client.ask(SUBMIT)
        assert (status, headers["connection"]) == (202, "close")
        assert await client.ended()
    status, headers, body = await (await running.connect()).ask(READY)
    assert (status, headers["connection"]) == (503, "close")
    assert json.loads(body)["status"] == "leaving"
    await running.stop()
    assert 1.0 < time.monotonic() - began < 3.0
    assert await idle.ended()


async def connected(running: Running) -> tuple[Connection, protocol.DirectProtocol]:
    """Both ends of one connection, which has served a request."""
    client = await running.connect()
    await client.ask(SUBMIT)
    (served,) = running.server.server_state.connections
    assert isinstance(served, protocol.DirectProtocol)
    return client, served


async def test_a_request_that_a_busy_loop_has_not_read_yet_is_answered(running: Running) -> None:
    """Whether the connection is to be closed because the server ends or because it is idle."""
    client, served = await connected(running)
    client.send_now(SUBMIT)
    served.cut_off("idle")
    served.timeout_keep_alive_handler()
    running.world.edge.leave(1.0)
    served.shutdown()
    status, headers, _ = await client.read()
    assert (status, headers["connection"]) == (202, "close")
    assert await client.ended()


async def test_a_client_learns_at_once_that_its_idle_connection_is_closed(running: Running) -> None:
    """A turn of the loop later, it could have sent a request that nobody reads."""
    client, served = await connected(running)
    served.shutdown()
    assert client.ends_now()


@pytest.mark.parametrize("there", [0, 20, len(POST), len(SUBMIT) - 5])
async def test_what_has_begun_when_the_server_ends_is_answered(
    running: Running, there: int
) -> None:
    """Also the first request of a connection that has only just been made."""
    client = await running.connect()
    client.writer.write(SUBMIT[:there])
    await asyncio.sleep(0.05)
    ending = asyncio.create_task(running.stop())
    await asyncio.sleep(0.1)
    client.writer.write(SUBMIT[there:])
    status, headers, _ = await client.read()
    assert (status, headers["connection"]) == (202, "close")
    await ending


async def test_what_never_arrives_holds_up_the_end_for_a_moment_only(running: Running) -> None:
    client = await running.connect()
    client.writer.write(SUBMIT[:20])
    await asyncio.sleep(0.05)
    began = time.monotonic()
    running.server.should_exit = True
    assert await client.ended()
    await running.task
    assert time.monotonic() - began < ARRIVAL + 1.0


async def test_an_answer_that_has_not_said_so_is_not_the_last(running: Running) -> None:
    """Its reader may send the next request at once."""
    client, served = await connected(running)
    assert (await client.ask(READY))[0] == 200
    cycle = served.cycle
    assert isinstance(cycle, RequestResponseCycle)
    cycle.response_complete = False
    for started in (True, False):
        cycle.response_started = started
        served.answer_last()
        assert cycle.keep_alive is started
    cycle.response_complete = True


async def test_after_sigint_nothing_more_is_taken() -> None:
    running = Running(World())
    idle = await running.connect()
    await idle.ask(SUBMIT)
    began = time.monotonic()
    running.server.handle_exit(signal.SIGTERM, None)
    running.server.handle_exit(signal.SIGINT, None)
    assert await idle.ended()
    await running.stop()
    assert time.monotonic() - began < server.FAREWELL - 0.5


async def test_a_drain_gives_those_who_wait_too_long_their_receipt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "LAST_WAIT", 0.2)
    running = Running(World())
    running.world.tasks.delay = 60.0
    client = await running.connect()
    client.writer.write(WAITED)
    await asyncio.sleep(0.05)
    stopping = asyncio.create_task(running.stop())
    status, headers, body = await client.read()
    assert (status, headers["connection"]) == (202, "close")
    assert json.loads(body)["status"] == "queued"
    await asyncio.wait_for(stopping, 5)


async def test_a_body_is_not_kept_while_its_task_runs_nor_while_the_connection_idles(
    running: Running,
) -> None:
    running.world.tasks.delay = 0.3
    body = b'{"data": {"text": "%b"}}' % (b"x" * 50_000)
    head = POST.replace(b"Host:", b"Prefer: wait=5\r\nHost:")
    client = await running.connect()
    for request, status in (
        (head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), 200),
        (POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body[:-1] + b"x"), 422),
    ):
        client.writer.write(request)
        await asyncio.sleep(0.15)
        (connection,) = running.server.server_state.connections
        assert isinstance(connection, protocol.DirectProtocol)
        exchange: object = connection.cycle
        assert isinstance(exchange, protocol.DirectExchange)
        assert (exchange.body, exchange.request.body) == ([], b"")
        assert (await client.read())[0] == status
        assert (exchange.body, exchange.request.body) == ([], b"")


async def test_a_start_that_fails_ends_the_server_and_one_that_hangs_does_not_hold_it() -> None:
    async def fail() -> None:
        raise ConfigurationError("no")

    async def hang() -> None:
        await asyncio.sleep(60)

    world = World()
    world.edge.start = fail
    with pytest.raises(ConfigurationError):
        await server.Server(world.edge).serve(sockets=[])
    world.edge.start = hang
    hanging = server.Server(world.edge)
    serving = asyncio.create_task(hanging.serve(sockets=[]))
    await asyncio.sleep(0.05)
    hanging.handle_exit(signal.SIGTERM, None)
    await asyncio.wait_for(serving, 2)
    assert hanging.should_exit
    assert not hanging.started


async def test_several_processes_can_share_a_port_only_when_told_to() -> None:
    def settings(processes: int, port: int) -> Settings:
        given: dict[str, Any] = {"api_processes": processes, "port": port}
        return Settings(**given)

    port = free_port()
    with bind(settings(2, port)), bind(settings(2, port)):
        pass
    port = free_port()
    with bind(settings(1, port)) as first:
        first.listen()
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port}.*in use"):
            bind(settings(1, port))
