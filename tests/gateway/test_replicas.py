"""The API replicas behind the gateway: balance, loss, return; a POST goes to one of them only."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from inferstack.concurrency import end
from tests.gateway.gateway import Gateway, eventually, problem, resolving_program
from tests.gateway.stack import Replicated
from tests.gateway.upstream import Names

pytestmark = pytest.mark.timeout(120)

Headers = dict[str, str]


@dataclass
class Attempt:
    """One submit."""

    name: str
    """Of the request, and of its payload."""
    began: float
    answer: httpx.Response | None = None

    @property
    def accepted(self) -> bool:
        """Whether it was answered as it should."""
        return self.answer is not None and self.answer.status_code == 202


@dataclass
class Load:
    """Clients that submit without a pause, each once."""

    gateway: Gateway
    caller: Headers
    marker: str = field(default_factory=lambda: uuid4().hex)
    attempts: list[Attempt] = field(default_factory=list)
    answered: int = 0

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        """Submits until the block ends, then waits for the last answers."""
        stopping = asyncio.Event()

        async def work(client: httpx.AsyncClient) -> None:
            while not stopping.is_set():
                await self.submit(client)

        async with self.client() as client:
            workers = [asyncio.create_task(work(client)) for _ in range(clients)]
            try:
                yield
            finally:
                stopping.set()
                await asyncio.gather(*workers)

    def client(self) -> httpx.AsyncClient:
        """One for all of them."""
        return self.gateway.client(**self.caller)

    def log(self) -> list[dict[str, Any]]:
        """Lines of the access log that are ours."""
        return self.gateway.log(self.marker)

    def shares(self) -> Counter[str]:
        """How many requests each replica got."""
        return Counter(line["upstream"] for line in self.log())

    async def submit(self, client: httpx.AsyncClient) -> Attempt:
        """Submits one more."""
        attempt = Attempt(f"{self.marker}-{len(self.attempts)}", time.monotonic())
        self.attempts.append(attempt)
        try:
            attempt.answer = await client.post(
                "/api/inference",
                json={"data": {"payload": attempt.name}},
                headers={"x-request-id": attempt.name},
            )
        except httpx.TransportError:
            attempt.answer = None
        self.answered += 1
        return attempt

    async def ask(self, client: httpx.AsyncClient) -> int:
        """Sends a request that may be repeated; returns the status."""
        headers = {"x-request-id": f"{self.marker}-ask"}
        return (await client.get("/health/live", headers=headers)).status_code

    async def more(self, count: int) -> None:
        """Returns after so many more answers."""
        wanted = self.answered + count
        await eventually(lambda: self.answered >= wanted)

    def check(self, stack: Replicated) -> None:
        """What was accepted is there once, what was not is there once or not at all."""
        tasks = Counter(stack.tasks(self.marker))
        assert set(tasks.values()) == {1}
        assert {attempt.name for attempt in self.attempts if attempt.accepted} <= tasks.keys()
        assert tasks.keys() <= {attempt.name for attempt in self.attempts}


async def test_work_is_spread_over_the_replicas(
    gateway: Gateway, stack: Replicated, caller: Headers
) -> None:
    load = Load(gateway, caller)
    async with load.running(clients=8):
        await load.more(100)
    assert all(attempt.accepted for attempt in load.attempts)
    await eventually(lambda: len(load.log()) == len(load.attempts))
    shares = load.shares()
    assert shares.keys() == set(stack.addresses)
    assert min(shares.values()) > len(load.attempts) / 4


async def test_a_replica_that_drains_under_load_fails_nothing(
    gateway: Gateway, stack: Replicated, caller: Headers
) -> None:
    load = Load(gateway, caller)
    async with load.running(clients=12):
        await load.more(100)
        stack.second.signal(signal.SIGTERM)
        await eventually(lambda: stack.second.dead)
        await load.more(100)
    await stack.restart()
    assert all(attempt.accepted for attempt in load.attempts)
    load.check(stack)


async def test_a_replica_killed_under_load_fails_only_what_was_in_flight_on_it(
    gateway: Gateway, stack: Replicated, caller: Headers
) -> None:
    load = Load(gateway, caller)
    _, killed = stack.addresses
    async with load.running(clients=12):
        await load.more(100)
        stack.second.stop()
        gone = time.monotonic()
        await load.more(200)
    await stack.restart()
    # It is asked again soon.
    before = load.shares()[killed]
    async with load.running(clients=4):
        await eventually(lambda: load.shares()[killed] > before + 10)
    for attempt in load.attempts:
        if not attempt.accepted:
            assert attempt.began < gone
            assert gateway.logged(attempt.name)["upstream"] == killed
    load.check(stack)


async def test_a_post_that_was_sent_is_never_sent_again_but_a_get_is(
    gateway: Gateway, stack: Replicated, caller: Headers
) -> None:
    load = Load(gateway, caller)
    _, killed = stack.addresses
    async with load.client() as client:
        stack.first.signal(signal.SIGSTOP)
        stack.second.signal(signal.SIGSTOP)
        try:
            posts = [asyncio.create_task(load.submit(client)) for _ in range(8)]
            await eventually(lambda: stack.unread() == 8)
            gets = [asyncio.create_task(load.ask(client)) for _ in range(8)]
            await eventually(lambda: stack.unread() == 16)
            # Every request has been sent, and no process has read it.
            stack.second.stop()
        finally:
            stack.first.signal(signal.SIGCONT)
        attempts = await asyncio.gather(*posts)
        assert set(await asyncio.gather(*gets)) == {200}
    await stack.restart()
    lost = [attempt for attempt in attempts if not attempt.accepted]
    assert 0 < len(lost) < len(attempts)
    for attempt in attempts:
        line = gateway.logged(attempt.name)
        assert line["upstream"] in stack.addresses
        assert (line["upstream"] == killed) == (attempt in lost)
    for attempt in lost:
        assert attempt.answer is not None
        assert attempt.answer.status_code == 502
        assert problem(attempt.answer)["type"].endswith("/bad-gateway")
    load.check(stack)
    assert len(stack.tasks(load.marker)) == len(attempts) - len(lost)
    retried = [line for line in load.log() if line["upstream"].startswith(f"{killed}, ")]
    assert retried
    assert {line["method"] for line in retried} == {"GET"}


async def test_replicas_come_and_go_by_name(stack: Replicated) -> None:
    program = resolving_program()
    first, second = stack.addresses
    with (
        Names("127.0.0.1") as names,
        Gateway(
            f"api.test:{stack.port}", GATEWAY_NGINX=program, GATEWAY_RESOLVER=names.address
        ) as gateway,
    ):
        asking = asyncio.create_task(_ask(gateway))
        try:
            await eventually(lambda: _latest(gateway) == {first})
            names.addresses = ("127.0.0.1", "127.0.0.2")
            await eventually(lambda: _latest(gateway) == {first, second})
            names.addresses = ("127.0.0.2",)
            await eventually(lambda: _latest(gateway) == {second})
        finally:
            await end(asking)
        found = [line["status"] for line in gateway.log()]
    # Before the first look-up there is nobody to ask; afterwards nothing is lost.
    assert set(found[found.index(200) :]) == {200}


async def _ask(gateway: Gateway) -> None:
    async with gateway.client() as client:
        while True:
            await client.get("/health/live")
            await asyncio.sleep(0.01)


def _latest(gateway: Gateway) -> set[str]:
    """Who answered the latest requests."""
    return {line["upstream"] for line in gateway.log()[-10:]}
