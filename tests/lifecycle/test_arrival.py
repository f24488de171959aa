"""What a process does at its start about services that it needs."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from inferstack.errors import (
    ConfigurationError,
    InferstackError,
    QueueUnavailableError,
    StorageRefusedError,
    StorageUnavailableError,
)
from inferstack.lifecycle import arrival
from inferstack.lifecycle.arrival import Need, arrived


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(arrival, "LONGEST_PAUSE", 0.001)


def answering(*answers: InferstackError | None) -> Callable[[], Awaitable[None]]:
    """A service that gives these answers, one after the other."""
    left = list(answers)

    async def ask() -> None:
        error = left.pop(0)
        if error is not None:
            raise error

    return ask


async def test_what_is_not_there_is_waited_for_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    away = QueueUnavailableError("Redis does not answer")
    needs = [Need("Redis", answering(*[away] * 5, None)), Need("PostgreSQL", answering(None))]
    assert await arrived(needs, asyncio.Event())
    assert caplog.messages == ["waiting for Redis: Redis does not answer", "Redis answers"]


async def test_what_can_be_done_without_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    away = answering(StorageUnavailableError("away"))
    assert await arrived([Need("objects", away, essential=False)], asyncio.Event())
    assert caplog.messages == ["going on without objects: away"]


@pytest.mark.parametrize("kind", [ConfigurationError, StorageRefusedError])
@pytest.mark.parametrize("essential", [True, False])
async def test_a_refusal_ends_the_wait(kind: type[InferstackError], essential: bool) -> None:
    ask = answering(kind("REDIS_URL: wrong password"))
    with pytest.raises(ConfigurationError, match="REDIS_URL: wrong password"):
        await arrived([Need("x", ask, essential=essential)], asyncio.Event())


async def test_a_stop_ends_the_wait() -> None:
    stopping = asyncio.Event()
    asked: list[None] = []

    async def ask() -> None:
        asked.append(None)
        stopping.set()
        raise QueueUnavailableError

    assert not await arrived([Need("x", ask), Need("y", ask)], stopping)
    assert len(asked) == 1
