"""Every script against the pure model, on a real Redis, in any order hypothesis can think of."""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Sequence
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, multiple, rule

from inferstack.config import load
from inferstack.deployment import ReplicaStatus
from inferstack.errors import QueueUnavailableError
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.notes import Notes
from inferstack.queue.outbox import Outbox
from inferstack.queue.settle import purge, settle
from inferstack.queue.statistics import sample
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Completion, Failure, Retry, Submit
from inferstack.task import Execution, Priority, Task, TaskError, TaskSpec, new_task_id
from tests.queue import machine
from tests.queue.model import LANES, MOVED, TERMINAL, ModelQueue

NAME = "echo:1"
ERROR = encode(TaskError("engine-error", "boom", retryable=True))
RUN = encode(Execution("w"))
WORKERS = ("w1", "w2", "w3")
TENANTS = ("a", "b")
KEYS = ("k1", "k2")
BODIES = ("x", "y")
NAMES = [(tenant, key) for tenant in TENANTS for key in KEYS]
HOLDERS = [f"is:{{{NAME}}}:idem:{len(tenant)}:{tenant}:{key}" for tenant, key in NAMES]
ROUTES = [f"is:{{keys}}:{len(tenant)}:{tenant}:{key}" for tenant, key in NAMES]
MOVED_MS = 120_000
"""For how long a key that was given up is refused: longer than any request is on its way."""
FAR = 2**52
"""A moment that does not come."""


class Held(NamedTuple):
    """The right to run one attempt, once given."""

    task_id: str
    attempt: int
    worker: str

    @property
    def key(self) -> tuple[str, int]:
        return self.task_id, self.attempt


def by_worker(batch: Sequence[Held]) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """A call for each replica, in any order of their tasks."""
    for worker, some in groupby(batch, key=lambda each: each.worker):
        yield worker, [each.key for each in some]


def _completion(task_id: str, attempt: int) -> Completion:
    return Completion(task_id, attempt, f'"{task_id}/{attempt}"'.encode(), "", RUN)


def _failure(task_id: str, attempt: int, how: Retry) -> Failure:
    return Failure(task_id, attempt, how, 3600.0, ERROR, RUN)


class Protocol(machine.Machine):
    """The real queue and the model side by side."""

    SCRIPTS: ClassVar = frozenset(
        {
            "archive",
            "cancel",
            "claim",
            "complete",
            "enqueue",
            "extend",
            "fail",
            "free",
            "heartbeat",
            "holder",
            "load",
            "purge",
            "release",
            "settle",
            "tick",
            "watch",
        }
    )
    tasks: Bundle[str] = Bundle("tasks")
    held: Bundle[Held] = Bundle("held")

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
        tenant=st.sampled_from(TENANTS),
        cost=st.sampled_from([1.0, 2.5, 100.0]),
        key=st.sampled_from(["", "", *KEYS]),
        body=st.sampled_from(BODIES),
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

    @rule(key=st.sampled_from(["", *KEYS]))
    def enqueue_too_late(self, key: str) -> None:
        """A submit that was held up on its way changes nothing."""
        submit = self._submit(new_task_id(NAME), "high", "a", 1.0, key, "x", True)
        with pytest.raises(QueueUnavailableError, match="too late"):
            self.do(self.queue.enqueue([submit], "api", first_sent=time.monotonic() - 60))

    @rule(
        tenant=st.sampled_from(TENANTS),
        key=st.sampled_from(KEYS),
        body=st.sampled_from(BODIES),
        moves=st.booleans(),
        repeats=st.booleans(),
    )
    def turned_away(self, tenant: str, key: str, body: str, moves: bool, repeats: bool) -> None:
        """A submit with a key finds the circuit open, or is one that is taken as a repeat only.

        Another deployment may take its key then, so this one must never take it again.
        """
        task_id = new_task_id(NAME)
        breaker = f"is:{{{NAME}}}:breaker"
        if not repeats:
            self.do(self.redis.hset(breaker, "until", FAR))
        submit = self._submit(task_id, "high", tenant, 1.0, key, body, True)
        (answer,) = self.do(
            self.queue.enqueue([submit._replace(moves=moves, repeats=repeats)], "api")
        )
        self.do(self.redis.delete(breaker))
        expected = self.model.turn_away(task_id, tenant, key, body, gives_up=moves and not repeats)
        assert (answer.status, answer.task_id) == expected
        assert (answer.ahead > 0) == (answer.status == "open" and not repeats)

    @rule(tenant=st.sampled_from(TENANTS), key=st.sampled_from(KEYS), give_up=st.booleans())
    def holder(self, tenant: str, key: str, give_up: bool) -> None:
        """Another deployment asks who has a key, and may want to take it."""
        found = self.do(self.queue.holder(tenant, key, give_up=give_up))
        assert found == self.model.holder(tenant, key, give_up=give_up)

    @rule(
        tenant=st.sampled_from(TENANTS),
        key=st.sampled_from(KEYS),
        whose=st.sampled_from(["its own", "given up", "another's"]),
        other=tasks,
    )
    def free(self, tenant: str, key: str, whose: str, other: str) -> None:
        """A key whose task is gone, or that comes back; others must not lose theirs by it."""
        own = self.model.holder(tenant, key, give_up=False) or ""
        task_id = {"its own": own, "given up": "", "another's": other}[whose]
        self.do(self.queue.free(tenant, key, task_id))
        self.model.free(tenant, key, task_id)

    @rule(target=held, worker=st.sampled_from(WORKERS), limit=st.integers(1, 6))
    def claim(self, worker: str, limit: int) -> Any:
        claims = self.do(self.queue.claim(worker, limit))
        expected = self.model.claim(worker, limit)
        assert [(c.task_id, c.attempt, c.crashes, c.failures) for c in claims] == [
            (t.task_id, t.attempt, t.crashes, t.failures) for t in expected
        ]
        assert all(c.spec.task_id == c.task_id for c in claims)
        return multiple(*(Held(c.task_id, c.attempt, worker) for c in claims))

    @rule(worker=st.sampled_from(WORKERS), batch=st.lists(held, max_size=4))
    def begin(self, worker: str, batch: list[Held]) -> None:
        begun = [each.key for each in batch]
        self.do(self._note(worker, begun))
        self.model.begin(worker, begun)

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
    def complete(self, batch: list[Held]) -> None:
        for worker, keys in by_worker(batch):
            done = [_completion(*key) for key in keys]
            expected = [self.model.complete(c.task_id, c.attempt, c.result) for c in done]
            assert self.do(self.queue.complete(worker, done)) == expected

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True), how=st.sampled_from(Retry))
    def fail(self, batch: list[Held], how: Retry) -> None:
        for worker, keys in by_worker(batch):
            failures = [_failure(*key, how) for key in keys]
            expected = [self.model.fail(*key, how) for key in keys]
            assert self.do(self.queue.fail(worker, failures)) == expected

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True))
    def release(self, batch: list[Held]) -> None:
        for worker, keys in by_worker(batch):
            expected = sum(self.model.release(*key) for key in keys)
            assert self.do(self.queue.release(worker, keys)) == expected

    @rule(batch=st.lists(held, min_size=1, max_size=4, unique=True))
    def extend(self, batch: list[Held]) -> None:
        for worker, keys in by_worker(batch):
            lost = {key[0] for key in keys if not self.model.runs(*key)}
            assert self.do(self.queue.extend(worker, keys)) == lost

    @rule(lease=held)
    def stranger(self, lease: Held) -> None:
        """A replica with the number of another's attempt, as after a claim that Redis lost."""
        held = [lease.key]
        assert self.do(self.queue.extend("w0", held)) == {lease.task_id}
        assert self.do(self.queue.release("w0", held)) == 0
        assert self.do(self.queue.fail("w0", [_failure(*lease.key, Retry.FINAL)])) == ["stale"]
        assert self.do(self.queue.complete("w0", [_completion(*lease.key)])) == ["stale"]

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
    def takeover(self, lease: Held, worker: str, begins: bool) -> Any:
        """A lease runs out and others take the work, while its holder lives on."""
        if begins:
            self.begin(worker, [lease])
        self.time_passes(lease.task_id, "lease")
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
        assert self.do(self.queue.complete("w1", [_completion(missing, 1)])) == ["stale"]

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
        pipe.hgetall(f"is:{{{NAME}}}:tenants")
        pipe.mget(HOLDERS + ROUTES)
        for holder in HOLDERS:
            pipe.pttl(holder)
        rows = self.do(pipe.execute())
        *sets, counts, held = rows[: -len(HOLDERS)]
        self._check_keys(held, rows[-len(HOLDERS) :])
        *found, expiring = ({m.decode(): s for m, s in rows} for rows in sets)
        for index, rows in zip(indexes, found, strict=True):
            there = {t.task_id: t for t in self.model.tasks.values() if t.where == index}
            assert rows.keys() == there.keys()
            if index in LANES:
                assert rows == {i: pytest.approx(t.tag) for i, t in there.items()}
        assert expiring.keys() == {
            t.task_id for t in self.model.tasks.values() if t.expires and t.state not in TERMINAL
        }
        expected = {tenant: self.model.unfinished(tenant) for tenant in TENANTS}
        assert {k.decode(): int(v) for k, v in counts.items()} == {
            tenant: count for tenant, count in expected.items() if count
        }

    def _check_keys(self, held: list[bytes | None], left: list[int]) -> None:
        """Every key leads to its task, whose deployment is remembered.

        Args:
            held: what each of `HOLDERS` holds, then what each of `ROUTES` does.
            left: milliseconds that each of `HOLDERS` has left.
        """
        wanted = [self.model.keys.get(name) for name in NAMES]
        holders = [" ".join(each).strip().encode() if each else None for each in wanted]
        routes = [NAME.encode() if name in self.model.routes else None for name in NAMES]
        assert held == holders + routes
        # Whoever takes a key that was given up has it for the whole time.
        for each, ms in zip(wanted, left, strict=True):
            assert each is None or (0 < ms <= MOVED_MS) == (each == MOVED)

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
def test_the_scripts_do_what_the_model_says(
    clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run(Protocol, clean_redis_url, monkeypatch, examples=100, steps=50)
