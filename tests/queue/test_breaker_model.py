"""The circuit breaker against a model without time, in any order hypothesis can think of."""

import asyncio
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from inferstack.deployment import Circuit
from inferstack.queue.types import Claim, Enqueued
from tests.queue import machine
from tests.queue.test_breaker import NAME, Bench

VOLUME, RATIO, CRASHES, PAUSE = 6, 0.5, 2, 3600.0
PROBES, LONGEST = 4, 32
KEY = f"is:{{{NAME}}}:breaker"
COUNTS = st.integers(1, 5)


@dataclass(frozen=True)
class Model:
    """What the breaker should know."""

    circuit: Circuit = Circuit.CLOSED
    good: int = 0
    bad: int = 0
    crashes: int = 0
    opens: int = 0
    """In a row."""

    def after(self, good: int, bad: int, crashes: int) -> "Model":
        """What it should know once some attempts have ended."""
        failed = bad + crashes > 0
        if self.circuit is Circuit.OPEN:
            return self
        if self.circuit is Circuit.HALF_OPEN:
            if failed:
                return self._open()
            return Model() if good else self
        if not (failed or self.bad or self.crashes):
            return self  # Success alone is not counted.
        lost = 0 if good else self.crashes + crashes
        counts = replace(self, good=self.good + good, bad=self.bad + bad, crashes=lost)
        total = counts.good + counts.bad
        if lost >= CRASHES or (total >= VOLUME and counts.bad >= RATIO * total):
            return self._open()
        return counts if counts.bad or lost else Model()

    def _open(self) -> "Model":
        return Model(Circuit.OPEN, opens=self.opens + 1)

    @property
    def pause(self) -> float:
        """Milliseconds that it is open for."""
        return PAUSE * 1000 * float(min(2 ** (self.opens - 1), LONGEST))


class Breaker(machine.Machine):
    """The scripts and the model side by side; the test moves the moments, not the clock."""

    SCRIPTS: ClassVar = frozenset({"enqueue", "claim", "complete", "fail", "tick"})

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        rules = {
            "breaker_volume": VOLUME,
            "breaker_ratio": RATIO,
            "breaker_crashes": CRASHES,
            "breaker_pause": PAUSE,
        }
        self.bench = Bench(self.url, max_crashes=100, lease=3600, **rules)
        self.off = Bench(self.url, breaker=False)
        self.redis = self.bench.redis
        self.model, self.opened = Model(), 0
        self.waiting, self.held = 0, list[Claim]()

    def teardown(self) -> None:
        for bench in (self.bench, self.off):
            self.loop.run_until_complete(bench.redis.aclose())
        self.loop.close()

    @initialize()
    def start(self) -> None:
        self.loop.run_until_complete(self.redis.flushall())

    @rule(count=COUNTS)
    def submit(self, count: int) -> None:
        answers = self.loop.run_until_complete(self.bench.submit(count))
        room = count
        if self.model.circuit is not Circuit.CLOSED:
            room = max(0, PROBES - self.waiting - len(self.held))
        if self.model.circuit is Circuit.OPEN:
            room = 0
            soon = self.model.pause - PAUSE * 1000
            assert all(soon < answer.ahead <= self.model.pause for answer in answers)
        taken = min(count, room)
        self.waiting += taken
        expected = [Enqueued.OK] * taken + [Enqueued.OPEN] * (count - taken)
        assert [answer.status for answer in answers] == expected

    @rule(count=COUNTS)
    def claim(self, count: int) -> None:
        claims = self.loop.run_until_complete(self.bench.claim(count))
        limit = min(count, self.waiting)
        if self.model.circuit is Circuit.HALF_OPEN:
            limit = min(limit, max(0, PROBES - len(self.held)))
        if self.model.circuit is Circuit.OPEN:
            limit = 0
        assert len(claims) == limit
        self.waiting -= limit
        self.held += claims

    @rule(count=COUNTS)
    def complete(self, count: int) -> None:
        self._hold()
        done, self.held = self.held[:count], self.held[count:]
        self.loop.run_until_complete(self.bench.complete(done))
        self._judge(good=len(done))

    @rule(count=COUNTS, engine=st.booleans())
    def fail(self, count: int, engine: bool) -> None:
        """Only what the engine is to blame for counts, not what it refuses."""
        self._hold()
        done, self.held = self.held[:count], self.held[count:]
        self.loop.run_until_complete(self.bench.fail(done, engine=engine))
        self._judge(bad=len(done) if engine else 0)

    @precondition(lambda self: self.held)
    @rule()
    def lose(self) -> None:
        """The replica ends in the middle of a batch: one crash, however many tasks it had."""

        async def lose() -> None:
            await self.bench.queue.tick()
            note = " ".join(f"{claim.task_id}/{claim.attempt}" for claim in self.held)
            await self.redis.set(f"is:{{{NAME}}}:run:w", note)
            leases = dict.fromkeys((claim.task_id for claim in self.held), 1)
            await self.redis.zadd(f"is:{{{NAME}}}:lease", leases, xx=True)
            assert (await self.bench.queue.tick())[2] == len(self.held)

        self.loop.run_until_complete(lose())
        self.waiting += len(self.held)
        self.held = []
        self._judge(crashes=1)

    @precondition(lambda self: self.model.circuit is Circuit.OPEN)
    @rule()
    def the_pause_is_over(self) -> None:
        self.loop.run_until_complete(self.redis.hset(KEY, "until", 1))
        self.model = replace(self.model, circuit=Circuit.HALF_OPEN)

    @precondition(lambda self: self.model.circuit is Circuit.OPEN)
    @rule()
    def probe_in_vain(self) -> None:
        """Its pauses become longer; by chance alone that would hardly happen."""
        self.the_pause_is_over()
        self.fail(1, engine=True)

    @rule(on=st.booleans())
    def tick(self, on: bool) -> None:
        """Of a process that has a breaker, or of one in which it is off."""
        bench = self.bench if on else self.off
        self.loop.run_until_complete(bench.queue.tick())
        if not on:
            self.model = Model()

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        found = self.loop.run_until_complete(self.bench.statistics())
        assert (found.circuit, found.opened) == (self.model.circuit, self.opened)
        assert (found.depth, found.running) == (self.waiting, len(self.held))
        if self.model.circuit is not Circuit.CLOSED:
            paused = self.loop.run_until_complete(self.redis.hget(KEY, "for"))
            assert float(paused or 0) == self.model.pause

    def _hold(self) -> None:
        """Has something run, if it may: by chance alone that is too rare for what ends to count."""
        if not self.held:
            self.submit(1)
            self.claim(1)

    def _judge(self, good: int = 0, bad: int = 0, crashes: int = 0) -> None:
        before, self.model = self.model, self.model.after(good, bad, crashes)
        self.opened += self.model.opens > before.opens
        self.loop.run_until_complete(self._stop_time())

    async def _stop_time(self) -> None:
        """Nothing fades until a moment that lies ahead."""
        if await self.redis.hexists(KEY, "at"):
            await self.redis.hset(KEY, "at", 2**52)


def test_the_breaker_does_what_the_model_says(
    clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run(Breaker, clean_redis_url, monkeypatch, examples=50, steps=40)
