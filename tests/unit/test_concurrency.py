"""A group of tasks with a limit."""

import asyncio

import pytest

from inferstack.concurrency import limited_group


async def test_no_more_run_at_once_than_the_limit_and_all_have_ended_after_the_block() -> None:
    running, most, ended = 0, 0, 0

    async def work(turns: int) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        for _ in range(turns):
            await asyncio.sleep(0)
        running -= 1
        ended += 1

    async with limited_group(3) as start:
        for number in range(20):
            await start(work, number % 5)
    assert (most, ended) == (3, 20)


async def test_the_first_error_is_raised_as_it_is_once_the_others_have_ended() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.set()

    async def fails() -> None:
        await begun.wait()
        raise ValueError("one") from KeyError("cause")

    async def caller() -> None:
        async with limited_group(2) as start:
            for work in (waits, fails, waits):
                await start(work)

    with pytest.raises(ValueError, match="one") as caught:
        await caller()
    assert ended.is_set()
    assert isinstance(caught.value.__cause__, KeyError)


async def test_an_error_of_the_block_itself_ends_the_tasks() -> None:
    task: asyncio.Task[None] | None = None

    async def waits() -> None:
        nonlocal task
        task = asyncio.current_task()
        await asyncio.Event().wait()

    async def caller() -> None:
        async with limited_group(2) as start:
            await start(waits)
            await asyncio.sleep(0)
            raise ValueError("block")

    with pytest.raises(ValueError, match="block"):
        await caller()
    assert task is not None
    assert task.cancelled()


async def test_it_is_cancelled_with_its_caller() -> None:
    begun = asyncio.Event()

    async def waits() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def caller() -> None:
        async with limited_group(1) as start:
            await start(waits)
            await start(waits)

    task = asyncio.create_task(caller())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
