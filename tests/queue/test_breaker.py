"""The circuit breaker: what opens it, what it holds back, what closes it again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from inferstack.config import load
from inferstack.deployment import Circuit
from inferstack.queue.codec import encode
from inferstack.queue.connection import Redis, connect
from inferstack.queue.statistics import QueueStatistics, sample
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Accepted, Claim, Completion, Enqueued, Failure, Retry, Submit
from inferstack.task import Execution, Priority, TaskError, TaskSpec, new_task_id

pytestmark = pytest.mark.asyncio

NAME = "echo:1"
PAUSE = 0.3
ERROR = encode(TaskError("engine-error", "boom", retryable=True))
RUN = encode(Execution("w"))


class Bench:
    """One queue with a sensitive breaker."""

    def __init__(self, url: str, **settings: Any) -> None:
        chosen = {
            "breaker_volume": 10,
            "breaker_ratio": 0.5,
            "breaker_crashes": 2,
            "breaker_pause": PAUSE,
            "max_attempts": 100,
            "retry_delay": 0.0,
            "lease": 1.0,
        }
        self.redis: Redis = connect(url)
        self.queue = TaskQueue(self.redis, NAME, load(redis_url=url, **chosen | settings))

    async def submit(self, count: int, priority: Priority = Priority.NORMAL) -> list[Accepted]:
        specs = [
            TaskSpec(
                task_id=new_task_id(NAME),
                model="echo",
                model_version=1,
                tenant="t",
                data={},
                priority=priority,
            )
            for _ in range(count)
        ]
        return await self.queue.enqueue([Submit(spec, encode(spec)) for spec in specs])

    async def claim(self, count: int) -> list[Claim]:
        return await self.queue.claim("w", count)

    async def complete(self, claims: Sequence[Claim]) -> None:
        await self.queue.complete(
            "w", [Completion(claim.task_id, claim.attempt, b"1", "", RUN) for claim in claims]
        )

    async def fail(self, claims: Sequence[Claim], *, engine: bool = True) -> None:
        await self.queue.fail(
            "w",
            [
                Failure(claim.task_id, claim.attempt, Retry.FINAL, 0, ERROR, RUN, engine)
                for claim in claims
            ],
        )

    async def statistics(self) -> QueueStatistics:
        return (await sample(self.redis, [NAME]))[NAME]

    async def circuit(self) -> Circuit:
        return (await self.statistics()).circuit

    async def open(self) -> None:
        await self.submit(10)
        await self.fail(await self.claim(10))
        assert await self.circuit() is Circuit.OPEN

    async def until_half_open(self) -> None:
        async with asyncio.timeout(10):
            while await self.circuit() is not Circuit.HALF_OPEN:
                await asyncio.sleep(0.01)


@pytest.fixture
async def bench(clean_redis_url: str) -> AsyncIterator[Bench]:
    made = Bench(clean_redis_url)
    yield made
    await made.redis.aclose()


async def test_success_alone_leaves_no_trace(bench: Bench) -> None:
    await bench.submit(20)
    await bench.complete(await bench.claim(20))
    assert not await bench.redis.exists(f"is:{{{NAME}}}:breaker")


async def test_failures_below_the_volume_do_not_open_it(bench: Bench) -> None:
    await bench.submit(9)
    await bench.fail(await bench.claim(9))
    assert await bench.circuit() is Circuit.CLOSED


async def test_failures_below_the_ratio_do_not_open_it(bench: Bench) -> None:
    await bench.submit(40)
    await bench.fail(await bench.claim(1))
    for _ in range(13):
        await bench.complete(await bench.claim(2))
        await bench.fail(await bench.claim(1))
    assert await bench.circuit() is Circuit.CLOSED


async def test_inputs_that_the_model_refuses_do_not_open_it(bench: Bench) -> None:
    await bench.submit(30)
    await bench.fail(await bench.claim(30), engine=False)
    assert await bench.circuit() is Circuit.CLOSED


async def test_while_open_new_work_is_refused_and_what_waits_keeps_its_attempts(
    bench: Bench,
) -> None:
    await bench.submit(15)
    await bench.fail(await bench.claim(10))
    (refused,) = await bench.submit(1)
    assert refused.status is Enqueued.OPEN
    assert 0 < refused.ahead <= PAUSE * 1000
    assert await bench.claim(5) == []
    assert (await bench.statistics()).depth == 5


async def test_a_probe_that_succeeds_closes_it(bench: Bench) -> None:
    await bench.submit(10)
    await bench.open()
    await bench.until_half_open()
    probes = await bench.claim(100)
    assert len(probes) == 4
    assert await bench.claim(100) == []
    await bench.complete(probes[:1])
    assert await bench.circuit() is Circuit.CLOSED
    assert (await bench.submit(1))[0].status is Enqueued.OK
    assert len(await bench.claim(100)) == 7


async def test_an_empty_half_open_queue_takes_a_few_tasks(bench: Bench) -> None:
    await bench.open()
    await bench.until_half_open()
    answers = await bench.submit(6)
    assert [answer.status for answer in answers] == [Enqueued.OK] * 4 + [Enqueued.OPEN] * 2


async def test_a_probe_that_fails_opens_it_for_twice_as_long(bench: Bench) -> None:
    await bench.open()
    await bench.until_half_open()
    await bench.submit(1)
    await bench.fail(await bench.claim(1))
    (refused,) = await bench.submit(1)
    assert refused.status is Enqueued.OPEN
    assert PAUSE * 1000 < refused.ahead <= 2 * PAUSE * 1000
    assert (await bench.statistics()).opened == 2


async def test_results_of_what_ran_when_it_opened_change_nothing(bench: Bench) -> None:
    await bench.submit(12)
    running = await bench.claim(2)
    await bench.fail(await bench.claim(10))
    await bench.complete(running)
    assert await bench.circuit() is Circuit.OPEN


async def test_a_clock_that_steps_back_does_not_keep_it_open(bench: Bench) -> None:
    await bench.open()
    seconds, _ = await bench.redis.time()
    # As if the clock had been an hour ahead when it opened.
    await bench.redis.hset(f"is:{{{NAME}}}:breaker", "until", (seconds + 3600) * 1000)
    await bench.queue.tick()
    await bench.until_half_open()
    assert len(await bench.submit(1)) == 1


async def test_replicas_lost_in_a_row_open_it(clean_redis_url: str) -> None:
    bench = Bench(clean_redis_url, max_crashes=10)
    await bench.submit(1)
    for number in (1, 2):
        worker = f"w{number}"
        (claim,) = await bench.queue.claim(worker, 1)
        await bench.redis.set(f"is:{{{NAME}}}:run:{worker}", f"{claim.task_id}/{claim.attempt}")
        assert await bench.circuit() is Circuit.CLOSED
        async with asyncio.timeout(20):
            while not (await bench.queue.tick())[2]:
                await asyncio.sleep(0.05)
    assert await bench.circuit() is Circuit.OPEN
    await bench.redis.aclose()


async def test_a_breaker_that_is_off_never_opens(clean_redis_url: str) -> None:
    bench = Bench(clean_redis_url, breaker=False)
    await bench.submit(50)
    await bench.fail(await bench.claim(50))
    assert await bench.circuit() is Circuit.CLOSED
    await bench.redis.aclose()


async def test_turning_the_breaker_off_closes_an_open_circuit(
    bench: Bench, clean_redis_url: str
) -> None:
    await bench.open()
    off = Bench(clean_redis_url, breaker=False)
    await off.queue.tick()
    assert await off.circuit() is Circuit.CLOSED
    assert (await off.submit(1))[0].status is Enqueued.OK
    await off.redis.aclose()


async def test_the_fuller_the_queue_the_higher_a_priority_it_takes(clean_redis_url: str) -> None:
    bench = Bench(clean_redis_url, max_queue=20)

    async def fit(priority: Priority) -> int:
        answers = await bench.submit(20, priority)
        return sum(answer.status is Enqueued.OK for answer in answers)

    assert [await fit(priority) for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)] == [
        16,
        3,
        1,
    ]
    await bench.redis.aclose()
