import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from inferstack.client import load_report
from inferstack.client.errors import Problem
from inferstack.client.load import (
    CONNECT_TOGETHER,
    Load,
    Step,
    UnreachableError,
    _Run,
    requests,
    run,
    run_steps,
)
from inferstack.client.load_connection import Connection
from inferstack.client.load_plan import due_times
from inferstack.client.load_report import percentiles
from inferstack.errors import ConfigurationError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[[int, bytes], Awaitable[bytes | None]]


@asynccontextmanager
async def server(
    answer: Answer, port: int = 0, sockets: list[socket.socket] | None = None
) -> AsyncIterator[str]:
    """Yields a URL; `answer(number, request)` gives the bytes to send back, None to hang up.

    `sockets` gets the server's end of each connection.
    """
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        if sockets is not None:
            sockets.append(writer.get_extra_info("socket"))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await reader.readexactly(int(size or 0))
                count += 1
                reply = await answer(count, head + body)
                if reply is None:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    finally:
        listening.close()


async def ok(number: int, request: bytes) -> bytes:
    return OK


async def test_a_closed_loop_stops_after_the_count_with_every_request_answered() -> None:
    async with server(ok) as url:
        report = await run(Load(url=url, connections=3, max_requests=50, duration=30))
    assert report.statuses == {200: 50}
    assert report.sent == report.completed == 50
    assert report.failed == 0
    assert report.duration < 10


async def test_a_closed_loop_stops_after_its_time() -> None:
    async with server(ok) as url:
        report = await run(Load(url=url, connections=2, duration=0.2))
    assert report.duration == pytest.approx(0.2)
    assert report.rate > 0


async def test_bodies_are_sent_in_turn_with_the_headers() -> None:
    seen: list[bytes] = []

    async def answer(number: int, request: bytes) -> bytes | None:
        seen.append(request)
        return OK

    async with server(answer) as url:
        load = Load(
            url=url, bodies=[b"1", b"22"], headers={"A": "b"}, connections=1, max_requests=3
        )
        await run(load)
    assert [request[-2:].lstrip(b"\n") for request in seen] == [b"1", b"22", b"1"]
    assert all(request.startswith(b"POST /x HTTP/1.1\r\n") for request in seen)
    assert all(b"\r\nA: b\r\n" in request for request in seen)


async def test_a_fixed_rate_sends_what_was_due() -> None:
    async with server(ok) as url:
        report = await run(Load(url=url, connections=8, rate=200, duration=0.5))
    assert 99 <= report.completed <= 101
    assert report.failed == 0


async def test_a_stall_counts_for_every_request_that_was_due_meanwhile() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        if number == 1:
            await asyncio.sleep(0.4)
        return OK

    async with server(answer) as url:
        report = await run(Load(url=url, connections=1, rate=100, duration=0.5))
    # Only one request was under way during the stall, but 40 were due.
    assert report.latency_ms["p50"] > 100
    assert report.completed >= 49


async def test_requests_that_are_never_answered_are_errors_and_count_with_their_age() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        await asyncio.sleep(5)
        return None

    async with server(answer) as url:
        report = await run(Load(url=url, connections=1, rate=10, duration=0.3, timeout=0.3))
    assert report.errors == {"timeout": 3}
    assert report.failed == 3
    assert report.latency_ms["max"] >= 500


async def test_a_start_that_fails_closes_what_it_has_opened() -> None:
    opened, ended = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened, ended
        opened += 1
        if opened == CONNECT_TOGETHER:
            listening.close()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended += 1
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    with pytest.raises(UnreachableError):
        await run(Load(url=url, connections=CONNECT_TOGETHER + 1, duration=5))
    async with asyncio.timeout(5):
        while ended < CONNECT_TOGETHER:
            await asyncio.sleep(0.01)


async def test_a_run_that_is_cancelled_leaves_no_task_behind() -> None:
    hung_up = asyncio.Event()

    async def answer(number: int, request: bytes) -> bytes | None:
        hung_up.set()
        return None

    async with server(answer) as url:
        load = asyncio.create_task(run(Load(url=url, connections=20, duration=30)))
        await hung_up.wait()
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await load
        left = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not [name for name in left if name.startswith("_Run.")]


async def test_a_lost_connection_is_an_error_and_is_replaced() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        return None if number == 2 else OK

    async with server(answer) as url:
        report = await run(Load(url=url, connections=1, max_requests=5, duration=10))
    assert report.errors == {"connection-lost": 1}
    assert report.statuses == {200: 4}


async def test_a_connection_knows_that_the_server_has_closed_it_before_the_loop_does() -> None:
    serving: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    listening = await asyncio.start_server(lambda _, writer: serving.put(writer), "127.0.0.1", 0)
    owner = _Run(Load(url="http://127.0.0.1/"))
    address = listening.sockets[0].getsockname()
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(owner), *address
    )
    writer = await serving.get()
    assert not connection.ended()
    writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
    assert connection.ended()
    writer.close()
    connection.drop()
    listening.close()


async def test_no_request_goes_over_an_idle_connection_that_the_server_has_closed() -> None:
    """Also when the client was held up, and has several due when it sees the end."""
    sockets: list[socket.socket] = []
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        sockets.append(writer.get_extra_info("socket"))
        mine = sockets[-1]
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n"):
                count += 1
                if count == 3:
                    (idle,) = (each for each in sockets if each is not mine)
                    idle.shutdown(socket.SHUT_WR)
                    time.sleep(0.6)
                writer.write(OK)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    report = await run(Load(url=url, connections=2, rate=4, max_requests=8, duration=5))
    listening.close()
    assert (report.statuses, report.errors) == ({200: 8}, {})
    assert len(sockets) == 3


async def test_what_is_due_last_waits_for_a_new_connection() -> None:
    """When all were closed while the client was held up, until the end of its time."""
    sockets: list[socket.socket] = []
    async with server(ok, sockets=sockets) as url:
        running = asyncio.create_task(run(Load(url=url, connections=2, rate=4, duration=2.0)))
        await asyncio.sleep(0.6)
        for each in sockets:
            each.shutdown(socket.SHUT_WR)
        time.sleep(1.6)
        report = await running
    assert (report.statuses, report.errors) == ({200: 8}, {})


async def test_bad_statuses_are_counted() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        return OK if number % 2 else OK.replace(b"200 OK", b"503 No")

    async with server(answer) as url:
        report = await run(Load(url=url, connections=1, max_requests=4, duration=10))
    assert report.statuses == {200: 2, 503: 2}
    assert report.failed == 2


async def test_good_answers_are_kept_with_the_numbers_of_their_requests() -> None:
    async def answer(number: int, request: bytes) -> bytes:
        body = request[-1:]
        if body == b"c":
            return b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n"
        # The first one is the last to be answered.
        await asyncio.sleep(0.05 if body == b"a" else 0)
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 1\r\n\r\n" + body

    kept: list[load_report.Answer] = []
    async with server(answer) as url:
        load = Load(url=url, bodies=[b"a", b"b", b"c"], connections=3, max_requests=6)
        await run(load, kept)
    assert sorted(kept) == [(0, 202, b"a"), (1, 202, b"b"), (3, 202, b"a"), (4, 202, b"b")]


async def test_the_first_refusal_ends_the_run_when_asked_to() -> None:
    body = b'{"type": "x/model-not-found", "detail": "there is no model nope"}'
    refusal = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def answer(number: int, request: bytes) -> bytes | None:
        return refusal

    async with server(answer) as url:
        load = Load(url=url, connections=4, duration=30, stop_at_problem=True)
        with pytest.raises(Problem, match="404 model-not-found: there is no model nope"):
            await run(load)


async def test_a_server_that_is_busy_does_not_end_the_run() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        return OK.replace(b"200 OK", b"429 No")

    async with server(answer) as url:
        load = Load(url=url, connections=1, max_requests=4, duration=10, stop_at_problem=True)
        assert (await run(load)).statuses == {429: 4}


async def test_a_server_that_is_not_there_is_named() -> None:
    async with server(ok) as url:
        pass
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1"):
        await run(Load(url=url, connections=1))


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "ftp://127.0.0.1", "http://10.0.0.1/", "x"])
def test_only_this_machine_over_plain_http_is_loaded(url: str) -> None:
    with pytest.raises(ConfigurationError):
        requests(Load(url=url))


def test_another_machine_is_refused_with_the_flag_that_allows_it() -> None:
    with pytest.raises(ConfigurationError, match="--allow-remote"):
        requests(Load(url="http://10.0.0.1/"))


def test_another_machine_is_loaded_when_asked_for() -> None:
    assert requests(Load(url="http://10.0.0.1/", allow_remote=True))


def test_each_step_has_its_rate_from_where_the_last_one_ended() -> None:
    assert list(due_times([Step(0.5, 4), Step(1, 3)])) == pytest.approx(
        [0, 0.25, 0.5, 0.5 + 1 / 3, 0.5 + 2 / 3]
    )


@pytest.mark.parametrize("step", [Step(0.3, 10), Step(0.7, 10), Step(1.1, 70), Step(60, 1200)])
def test_rounding_adds_no_request(step: Step) -> None:
    assert step.count == round(step.seconds * step.rate)
    assert len(list(due_times([step]))) == step.count


async def test_steps_follow_each_other_and_are_told_apart() -> None:
    async with server(ok) as url:
        first, second = await run_steps(
            Load(url=url, connections=4, steps=[Step(0.3, 100), Step(1.0, 200)])
        )
    assert (first.completed, second.completed) == (30, 200)
    assert (first.duration, second.duration) == (0.3, 1.0)
    assert second.rate == pytest.approx(200, rel=0.15)


async def test_a_stall_at_the_end_of_a_step_counts_there_and_where_others_were_due() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        if number == 20:
            await asyncio.sleep(0.3)
        return OK

    async with server(answer) as url:
        first, second = await run_steps(
            Load(url=url, connections=1, steps=[Step(0.2, 100), Step(0.4, 100)])
        )
    assert (first.completed, second.completed) == (20, 40)
    assert first.latency_ms["max"] > 250
    assert second.latency_ms["max"] > 200
    assert first.latency_ms["p50"] < 100


async def test_what_waits_too_long_for_a_connection_is_given_up() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        if number == 1:
            await asyncio.sleep(0.5)
        return OK

    async with server(answer) as url:
        report = await run(Load(url=url, connections=1, rate=100, duration=0.4, patience=0.2))
    # Those that were due in the first 0.3 of the 0.5 s had waited for too long then.
    assert 20 <= report.unsent <= 36
    assert report.completed == 40 - report.unsent
    assert report.errors == {}
    assert report.failed == report.unsent


async def test_a_server_that_goes_and_comes_back_is_found_again() -> None:
    gone = False

    async def answer(number: int, request: bytes) -> bytes | None:
        return None if gone else OK

    async with server(answer) as url:
        load = Load(url=url, connections=2, rate=50, duration=2.0, patience=1.0)
        running = asyncio.create_task(run(load))
        await asyncio.sleep(0.5)
        gone = True
    await asyncio.sleep(0.3)
    gone = False
    async with server(answer, int(urlsplit(url).port or 0)):
        report = await running
    assert report.errors["connection-lost"] == 2
    assert 10 <= report.errors["unreachable"] <= 60
    assert report.completed + sum(report.errors.values()) == 100
    assert report.completed > 40


REFUSAL = b"HTTP/1.1 503 No\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"


async def test_a_refusal_that_says_when_to_come_back_is_told_apart_and_has_no_latency() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        if number == 1:
            await asyncio.sleep(0.3)
            return REFUSAL
        return REFUSAL.replace(b"Retry-After: 2\r\n", b"") if number == 2 else OK

    async with server(answer) as url:
        report = await run(Load(url=url, connections=1, max_requests=4, duration=10))
    assert report.statuses == {200: 2, 503: 2}
    assert report.refusals == {503: 1}
    assert report.failed == 2
    assert report.latency_ms["max"] < 300


async def test_an_answer_without_what_it_must_hold_is_not_completed() -> None:
    async def answer(number: int, request: bytes) -> bytes | None:
        return OK if number % 2 else OK.replace(b"ok", b"no")

    async with server(answer) as url:
        load = Load(url=url, connections=1, max_requests=4, duration=10, expected=b"ok")
        report = await run(load)
    assert report.statuses == {200: 2}
    assert report.errors == {"not-completed": 2}


def test_percentiles_of_nothing_are_zero() -> None:
    assert set(percentiles([]).values()) == {0.0}


def test_percentiles_are_in_milliseconds() -> None:
    found = percentiles([number / 1000 for number in range(1, 101)])
    assert found["p50"] == 51
    assert found["p99"] == 100
    assert found["max"] == 100
