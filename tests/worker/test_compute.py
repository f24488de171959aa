"""Batches that go wrong: how they are halved, and when that ends."""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from inferstack.worker.loop import Worker

from .fakes import FakeEngine, MemorySession, deployment, lease, settings, work_off


def fails_slowly(seconds: float) -> Callable[[list[Any]], list[Any]]:
    """What a model does whose backend is down."""

    def function(values: list[Any]) -> list[Any]:
        time.sleep(seconds)
        raise ValueError("no answer")

    return function


async def test_the_calls_of_a_batch_that_is_halved_are_timed_one_by_one() -> None:
    ended: list[int] = []
    session = MemorySession([lease(n) for n in range(2)])
    await work_off(
        session,
        FakeEngine(fails_slowly(0.8)),
        deployment=deployment(compute_timeout=1.0),
        end_process=ended.append,
    )
    assert ended == []
    assert len(session.failed) == 2


async def test_a_batch_is_halved_for_no_longer_than_one_call_may_take() -> None:
    session = MemorySession([lease(n) for n in range(32)])
    engine = FakeEngine(fails_slowly(0.3))
    slow = deployment(compute_timeout=0.5, batch_size=32)
    await work_off(session, engine, deployment=slow, end_process=lambda _: None)
    assert len(engine.batches) <= 2
    assert len(session.failed) == 32
    for error in session.failed.values():
        assert (error.type, error.retryable) == ("engine-error", True)
        assert error.message == (
            "its batch failed and was not halved to the end within 0.5 s: ValueError: no answer"
        )
        assert "in function" in (error.traceback or "")


async def test_nothing_of_a_call_that_failed_is_kept_while_its_batch_is_halved() -> None:
    class Memory:
        """What a model holds while it computes."""

    held: list[weakref.ref[Memory]] = []

    def fails(values: list[Any]) -> list[Any]:
        assert all(each() is None for each in held)
        memory = Memory()
        held.append(weakref.ref(memory))
        if len(values) > 1:
            raise MemoryError
        return values

    session = MemorySession([lease(n) for n in range(4)])
    await work_off(session, FakeEngine(fails))
    assert set(session.done) == {f"task-{n}" for n in range(4)}


async def test_of_a_batch_that_is_halved_larger_parts_come_first() -> None:
    session = MemorySession([lease(n) for n in range(8)])
    engine = FakeEngine(unless_alone(0))
    await work_off(session, engine)
    assert [len(batch) for batch in engine.batches] == [8, 4, 4, 2, 2, 1, 1]
    assert set(session.done) == {f"task-{n}" for n in range(8)}


def unless_alone(poison: int) -> Callable[[list[Any]], list[Any]]:
    def function(values: list[Any]) -> list[Any]:
        if len(values) > 1 and any(value["n"] == poison for value in values):
            raise ValueError("too many")
        return values

    return function


async def test_a_batch_that_is_halved_goes_on_without_those_that_nobody_wants_any_more() -> None:
    session = MemorySession([lease(n) for n in range(4)])
    session.expected = 1
    loop, dropped = asyncio.get_running_loop(), threading.Event()

    def drop() -> None:
        for number in (1, 2, 3):
            session.drop(f"task-{number}")
        dropped.set()

    def picky(values: list[Any]) -> list[Any]:
        if len(values) > 1:
            loop.call_soon_threadsafe(drop)
            assert dropped.wait(10)
            raise ValueError
        return values

    engine = FakeEngine(picky)
    await work_off(session, engine)
    assert [len(batch) for batch in engine.batches] == [4, 1]
    assert (set(session.done), session.failed) == ({"task-0"}, {})


async def test_a_drain_waits_for_one_call_of_a_batch_that_is_halved_and_gives_back_the_rest() -> (
    None
):
    session = MemorySession([lease(n) for n in range(8)])
    began, go_on = threading.Event(), threading.Event()

    def fails(values: list[Any]) -> list[Any]:
        if len(values) == 4 and values[0]["n"] == 0:
            return values
        if len(values) == 4:
            began.set()
            go_on.wait(10)
        raise ValueError

    engine = FakeEngine(fails)
    worker = Worker(session, engine, deployment(batch_size=8), settings())
    running = asyncio.create_task(worker.run())
    assert await asyncio.to_thread(began.wait, 10)
    worker.drain()
    go_on.set()
    await asyncio.wait_for(running, 10)
    assert [len(batch) for batch in engine.batches] == [8, 4, 4]
    assert set(session.done) == {f"task-{n}" for n in range(4)}
    assert session.released == [f"task-{n}" for n in range(4, 8)]
    assert session.failed == {}


async def test_a_batch_that_is_halved_for_nothing_is_told_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = MemorySession([lease(n) for n in range(8)])
    await work_off(session, FakeEngine(unless_alone(0)), deployment=deployment(batch_size=4))
    assert len(session.done) == 8
    session = MemorySession([lease(n) for n in range(16)])
    await work_off(session, FakeEngine(small), deployment=deployment(batch_size=4))
    told = [record.getMessage() for record in caplog.records if "calls" in record.getMessage()]
    assert told == [
        "a batch of 4 took 5 calls, though no input of it is bad: ValueError: too many",
        "a batch of 4 took 3 calls, though no input of it is bad: ValueError: too many for me",
    ]


def small(values: list[Any]) -> list[Any]:
    if len(values) > 2:
        raise ValueError("too many for me")
    return values


async def test_a_bad_input_is_not_told_as_a_batch_that_was_halved_for_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def picky(values: list[Any]) -> list[Any]:
        if any(value["n"] == 3 for value in values):
            raise ValueError
        return values

    session = MemorySession([lease(n) for n in range(8)])
    await work_off(session, FakeEngine(picky))
    assert set(session.failed) == {"task-3"}
    assert "calls" not in caplog.text
