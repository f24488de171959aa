"""The channel over which an API process learns what finished."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from inferstack.errors import ConfigurationError
from inferstack.queue import completions
from inferstack.queue.codec import News, pack
from inferstack.queue.completions import CompletionChannel
from inferstack.queue.connection import connect
from tests.services import RedisServer, free_port

pytestmark = pytest.mark.asyncio


def message(task_id: str) -> bytes:
    return pack([[task_id, "completed", 1, 0, 1, 2, "", "", "1", ""]])


class Ear:
    """A channel, what it was told, and what it swept."""

    def __init__(self, url: str) -> None:
        self.redis: Redis = connect(url)
        self.listening = connect(url, timeout=None)
        self.channel = CompletionChannel(self.listening, self.sweep)
        self.heard: list[str] = []
        self.swept: list[list[str]] = []
        self.sweep_errors: list[Exception] = []

    async def sweep(self, task_ids: list[str]) -> None:
        self.swept.append(task_ids)
        if self.sweep_errors:
            raise self.sweep_errors.pop()

    def hear(self, news: News) -> None:
        self.heard.append(news.task_id)

    async def tell(self, body: bytes) -> None:
        """Publishes as soon as somebody listens."""
        async with asyncio.timeout(10):
            while not await self.redis.publish(f"is:done:{self.channel.name}", body):
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self.channel.stop()
        await self.listening.aclose()
        await self.redis.aclose()


@pytest.fixture
async def ear(clean_redis_url: str) -> AsyncIterator[Ear]:
    found = Ear(clean_redis_url)
    yield found
    await found.close()


async def test_a_message_that_cannot_be_read_does_not_end_the_listening(
    ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    await ear.channel.start()
    ear.channel.listen("a", ear.hear)
    await ear.tell(b"\xc1")
    async with asyncio.timeout(10):
        while not ear.swept:
            await asyncio.sleep(0.01)
        await ear.tell(message("a"))
        while not ear.heard:
            await asyncio.sleep(0.01)
    assert ear.swept == [["a"]]
    assert [r.levelno for r in caplog.records].count(logging.WARNING) == 1


async def test_a_sweep_that_fails_is_done_again(ear: Ear) -> None:
    await ear.channel.start()
    ear.channel.listen("a", ear.hear)
    ear.sweep_errors = [KeyError("a mistake"), KeyError("another")]
    await ear.redis.client_kill_filter(_type="pubsub")
    async with asyncio.timeout(10):
        while len(ear.swept) < 3:
            await asyncio.sleep(0.01)
    assert not ear.sweep_errors, "both mistakes were met before a sweep came through"


async def test_a_wrong_password_ends_the_start(clean_redis_url: str) -> None:
    ear = Ear(clean_redis_url.replace("redis://", "redis://nobody:wrong@"))
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        await asyncio.wait_for(ear.channel.start(), 5)
    await ear.close()


async def test_a_start_waits_for_redis_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(completions, "LONGEST_PAUSE", 0.2)
    caplog.set_level(logging.INFO)
    server = RedisServer()
    server.port = free_port()
    ear = Ear(server.url)
    starting = asyncio.create_task(ear.channel.start())
    await asyncio.sleep(0.7)
    assert not starting.done()
    with server:
        await asyncio.wait_for(starting, 10)
        await ear.close()
    told = [r.message for r in caplog.records if r.name == completions.__name__]
    assert len(told) == 2
    assert "do not arrive" in told[0]
    assert "again" in told[1]


async def test_a_server_that_stands_still_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its kernel still answers: nothing else would ever break the connection."""
    monkeypatch.setattr(completions, "PING", 0.1)
    monkeypatch.setattr(completions, "SILENCE", 0.5)
    with RedisServer() as server:
        ear = Ear(server.url)
        await ear.channel.start()
        ear.channel.listen("a", ear.hear)
        os.kill(server.pid, signal.SIGSTOP)
        async with asyncio.timeout(10):
            while "do not arrive" not in caplog.text:
                await asyncio.sleep(0.01)
        os.kill(server.pid, signal.SIGCONT)
        async with asyncio.timeout(10):
            while not ear.swept:
                await asyncio.sleep(0.01)
        await ear.tell(message("a"))
        async with asyncio.timeout(10):
            while not ear.heard:
                await asyncio.sleep(0.01)
        assert ear.swept[0] == ear.heard == ["a"]
        await ear.close()


@pytest.mark.parametrize("sweeping", [False, True])
async def test_a_server_with_nothing_to_say_is_not_left(
    ear: Ear,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    sweeping: bool,
) -> None:
    """Also not while a sweep keeps the channel from reading the answers to its pings."""
    monkeypatch.setattr(completions, "PING", 0.1)
    monkeypatch.setattr(completions, "SILENCE", 0.4)

    async def sweep(task_ids: list[str]) -> None:
        await asyncio.sleep(1.0 if sweeping else 0.0)

    monkeypatch.setattr(ear.channel, "_sweep", sweep)
    ear.channel.listen("a", ear.hear)
    await ear.channel.start()
    await asyncio.sleep(1.5)
    await ear.tell(message("a"))
    async with asyncio.timeout(10):
        while not ear.heard:
            await asyncio.sleep(0.01)
    assert not caplog.records
