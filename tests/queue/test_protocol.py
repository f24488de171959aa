"""Every script against the pure model, on a real Redis, in any order hypothesis can think of."""

import asyncio
from collections.abc import Awaitable
from typing import Any, ClassVar

import pytest
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from inferstack.config import load
from inferstack.deployment import ReplicaStatus
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.notes import Notes
from inferstack.queue.outbox import Outbox
from inferstack.queue.purge import purge
from inferstack.queue.settle import settle
from inferstack.queue.statistics import sample
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Completion, Failure, Retry, Submit
from inferstack.task import Execution, Priority, Task, TaskError, TaskSpec, new_task_id
from tests.queue.model import LANES, TERMINAL, ModelQueue

NAME = "echo:1"
ERROR = encode(TaskError("engine-error", "boom", retryable=True))
RUN = encode(Execution("w"))
WORKERS = ("w1", "w2", "w3")


class Protocol(RuleBasedStateMachine):
    """The real queue and the model side by side."""

    url: ClassVar[str]
    tasks: Bundle[str] = Bundle("tasks")
    held: Bundle[tuple[str, int]] = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.loop = uvloop.new_event_loop()
        self.redis = connect(self.url)
        self.config = load(
            redis_url=self.url,
            max_queue=12,
            max_tenant_queue=8,
            max_attempts=3,
            max_crashes=2,
            lease=3600,
            breaker=False,
        )
        self.queue = TaskQueue(self.redis, NAME, self.config)
        self.outbox = Outbox(self.redis, [NAME], self.config)
        self.model = ModelQueue(max_attempts=3, max_crashes=2, max_queue=12, max_tenant=8)
        self.history: dict[str, Task] = {}

    def do(self, step: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(step)

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.loop.close()

    @initialize(target=held)
    def start(self) -> Any:
        """Most of what can go wrong goes wrong with leases, so some are there from the start."""
        self.do(self.redis.flushall())
        self.enqueue("normal", "a", 1.0, "", "x", True, 3)
        return self.claim("w1", 2)

    @rule(
        target=tasks,
        lane=st.sampled_from(LANES),
        tenant=st.sampled_from(["a", "b"]),
        cost=st.sampled_from([1.0, 2.5, 100.0]),
        key=st.sampled_from(["", "", "k1", "k2"]),
        body=st.sampled_from(["x", "y"]),
        expires=st.booleans(),
        count=st.integers(1, 3),
    )
    def enqueue(
        self, lane: str, tenant: str, cost: float, key: str, body: str, expires: bool, count: int
    ) -> Any:
        ids = [new_task_id(NAME) for _ in range(count)]
        submits = [self._submit(i, lane, tenant, cost, key, body, expires) for i in ids]
        answers = self.do(self.queue.enqueue(submits, "api"))
        assert [(a.status, a.task_id, a.ahead) for a in answers] == [
            self.model.enqueue(i, lane, tenant, cost, key, body, expires) for i in ids
        ]
        return multiple(*(a.task_id for a in answers if a.status == "ok"))

    def _submit(
        self, task_id: str, lane: str, tenant: str, cost: float, key: str, body: str, expires: bool
    ) -> Submit:
        spec = TaskSpec(
            task_id=task_id,
            model="echo",
            model_version=1,
            tenant=tenant,
            data={"text": body},
            priority=Priority(lane),
            timeout=3600.0 if expires else None,
            cost=cost,
            idempotency_key=key or None,
        )
        return Submit(spec, encode(spec), body)

    @rule(task_id=tasks)
    def enqueue_again(self, task_id: str) -> None:
        """A submit whose answer was lost is sent once more."""
        submit = self._submit(task_id, "high", "a", 1.0, "", "x", True)
        (answer,) = self.do(self.queue.enqueue([submit], "api"))
        expected = self.model.enqueue(task_id, "high", "a", 1.0, "", "x", True)
        assert (answer.status, answer.task_id, answer.ahead) == expected

    @rule(target=held, worker=st.sampled_from(WORKERS), limit=st.integers(1, 6))
    def claim(self, worker: str, limit: int) -> Any:
        claims = self.do(self.queue.claim(worker, limit))
        expected = self.model.claim(worker, limit)
        assert [(c.task_id, c.attempt, c.crashes, c.failures) for c in claims] == [
            (t.task_id, t.attempt, t.crashes, t.failures) for t in expected
        ]
        assert all(c.spec.task_id == c.task_id for c in claims)
        return multiple(*((c.task_id, c.attempt) for c in claims))

    @rule(worker=st.sampled_from(WORKERS), batch=st.lists(held, max_size=4))
    def begin(self, worker: str, batch: list[tuple[str, int]]) -> None:
        self.do(self._note(worker, batch))
        self.model.begin(worker, batch)

    async def _note(self, worker: str, batch: list[tuple[str, int]]) -> None:
        """Writes a note and waits until Redis has it."""
        notes = Notes(self.url, NAME, worker, 3600)
        await notes.write(batch)
        wanted = " ".join(f"{task_id}/{attempt}" for task_id, attempt in batch)
        while await self.redis.get(f"is:{{{NAME}}}:run:{worker}") != wanted.encode():
            await asyncio.sleep(0)
        await notes.close()

    @rule(worker=st.sampled_from(WORKERS), leaves=st.booleans())
    def heartbeat(self, worker: str, leaves: bool) -> None:
        if leaves:
            self.do(self.queue.leave(worker))
            self.model.live.discard(worker)
            self.model.began.pop(worker, None)
        else:
            self.do(self.queue.heartbeat(ReplicaStatus(worker=worker)))
            self.model.live.add(worker)

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True))
    def complete(self, batch: list[tuple[str, int]]) -> None:
        done = [Completion(i, a, f'"{i}/{a}"'.encode(), "", RUN) for i, a in batch]
        expected = [self.model.complete(c.task_id, c.attempt, c.result) for c in done]
        assert self.do(self.queue.complete(done)) == expected

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True), how=st.sampled_from(Retry))
    def fail(self, batch: list[tuple[str, int]], how: Retry) -> None:
        failures = [Failure(i, a, how, 3600.0, ERROR, RUN) for i, a in batch]
        expected = [self.model.fail(i, a, how) for i, a in batch]
        assert self.do(self.queue.fail(failures)) == expected

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True))
    def release(self, batch: list[tuple[str, int]]) -> None:
        expected = sum(self.model.release(i, a) for i, a in batch)
        assert self.do(self.queue.release(batch)) == expected

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True))
    def extend(self, batch: list[tuple[str, int]]) -> None:
        lost = {i for i, a in batch if not self.model.runs(i, a)}
        assert self.do(self.queue.extend(batch)) == lost

    @rule(task_id=tasks)
    def cancel(self, task_id: str) -> None:
        assert self.do(self.queue.cancel(task_id)) == self.model.cancel(task_id)

    @rule(task_id=tasks)
    def watch(self, task_id: str) -> None:
        state = self.do(self.queue.watch(task_id, "other"))
        assert state == (self.model.tasks[task_id].state if task_id in self.model.tasks else None)

    @rule(task_id=tasks, index=st.sampled_from(["deadline", "delay", "lease"]))
    def time_passes(self, task_id: str, index: str) -> None:
        """One task's moment comes; the test moves the moment, not the clock."""
        self.do(self.redis.zadd(f"is:{{{NAME}}}:{index}", {task_id: 1}, xx=True))
        getattr(self.model, f"{index}_passes")(task_id)
        self.do(self.queue.tick())

    @rule(target=held, lease=held, worker=st.sampled_from(WORKERS), begins=st.booleans())
    def takeover(self, lease: tuple[str, int], worker: str, begins: bool) -> Any:
        """A lease runs out and others take the work, while its holder lives on."""
        if begins:
            self.begin(worker, [lease])
        self.time_passes(lease[0], "lease")
        claimed = self.claim(worker, 6)
        self.extend([lease])
        self.release([lease])
        self.fail([lease], Retry.CHARGED)
        self.complete([lease])
        return claimed

    @rule(batch=st.lists(tasks, min_size=1, max_size=4), unfinished=st.booleans())
    def forget(self, batch: list[str], unfinished: bool) -> None:
        """Finished tasks that must leave no trace, or unfinished ones whose end history knows."""
        script = settle if unfinished else purge
        self.do(script(self.redis, NAME, batch))
        for task_id in batch:
            self.model.forget(task_id, unfinished=unfinished)

    @rule()
    def unknown(self) -> None:
        """Ids nobody submitted are nobody's."""
        missing = new_task_id(NAME)
        assert self.do(self.queue.cancel(missing)) is None
        assert self.do(self.queue.watch(missing, "api")) is None
        assert self.do(self.queue.get(missing)) is None
        assert self.do(self.queue.complete([Completion(missing, 1, b"1", "", RUN)])) == ["stale"]

    @rule(limit=st.integers(1, 4), twice=st.booleans())
    def archive(self, limit: int, twice: bool) -> None:
        entries = self.do(self.outbox.read(limit))
        for task in self.do(self.outbox.load(entries)):
            if task is not None:
                self.history[task.spec.task_id] = task
        if entries:
            known = [self.history[e.task_id] for e in entries if e.task_id in self.history]
            finished = [task.spec.task_id for task in known if task.state.terminal]
            for _ in range(1 + twice):
                self.do(self.outbox.archived(NAME, entries, finished))

    @invariant()
    def every_task_is_as_the_model_says(self) -> None:
        expected = list(self.model.tasks.values())
        found = self.do(self.queue.load([task.task_id for task in expected]))
        for want, have in zip(expected, found, strict=True):
            assert have is not None
            assert (have.state, have.version, have.crashes) == (
                want.state,
                want.version,
                want.crashes,
            )
            assert have.attempts == want.attempt - want.uncharged
            assert (bytes(have.result) if have.result else None) == want.result

    @invariant()
    def nobody_else_is_there(self) -> None:
        start = f"is:{{{NAME}}}:t:"
        found = self.do(self.redis.keys(f"{start}*"))
        assert {key.decode().removeprefix(start) for key in found} == self.model.tasks.keys()

    @invariant()
    def every_index_holds_what_it_should(self) -> None:
        indexes = ("delay", "lease", *LANES)
        pipe = self.redis.pipeline(transaction=False)
        for index in (*indexes, "deadline"):
            key = f"is:{{{NAME}}}:" + (f"w:{index}" if index in LANES else index)
            pipe.zrange(key, 0, -1, withscores=True)
        *found, expiring = ({m.decode(): s for m, s in rows} for rows in self.do(pipe.execute()))
        for index, rows in zip(indexes, found, strict=True):
            there = {t.task_id: t for t in self.model.tasks.values() if t.where == index}
            assert rows.keys() == there.keys()
            if index in LANES:
                assert rows == {i: pytest.approx(t.tag) for i, t in there.items()}
        assert expiring.keys() == {
            t.task_id for t in self.model.tasks.values() if t.expires and t.state not in TERMINAL
        }

    @invariant()
    def counters_count(self) -> None:
        counts = self.do(self.redis.hgetall(f"is:{{{NAME}}}:tenants"))
        expected = {tenant: self.model.unfinished(tenant) for tenant in ("a", "b")}
        assert {k.decode(): int(v) for k, v in counts.items()} == {
            tenant: count for tenant, count in expected.items() if count
        }

    @invariant()
    def nothing_unarchived_is_forgotten(self) -> None:
        """Whatever history does not know yet is still announced in the outbox."""
        entries = self.do(self.outbox.read(1000))
        assert self.do(sample(self.redis, [NAME]))[NAME].outbox == len(entries)
        announced = {entry.task_id for entry in entries}
        for task in self.model.tasks.values():
            known = self.history.get(task.task_id)
            if task.state in TERMINAL and (known is None or known.version < task.version):
                assert task.task_id in announced


@pytest.mark.timeout(300)
def test_the_scripts_do_what_the_model_says(clean_redis_url: str) -> None:
    Protocol.url = clean_redis_url
    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
