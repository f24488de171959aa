"""The queue of one deployment: each method is one script, and takes many tasks."""

import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from inferstack.config import Settings
from inferstack.deployment import ReplicaStatus
from inferstack.errors import QueueUnavailableError
from inferstack.queue import scripts
from inferstack.queue.arguments import LongTexts, flat, slices
from inferstack.queue.clock import RedisClock
from inferstack.queue.codec import (
    UNREADABLE,
    Row,
    decode_spec,
    decode_task,
    encode,
    pack,
    without_spec,
)
from inferstack.queue.connection import clock_ms, translated
from inferstack.queue.grouping import Grouper
from inferstack.queue.types import Accepted, Claim, Completion, Enqueued, Failure, Retry, Submit
from inferstack.task import Execution, Priority, Task, TaskError, TaskState

TICK_LIMIT = 500
"""Tasks of each kind that one tick moves, so that it never holds Redis for long."""

VALID = 10.0
"""Seconds after which Redis refuses a submit that was held up: nobody waits for its answer, and its
repeat may be done and forgotten (`ARCHIVED_TTL`), so that it would run again."""

MOVED_BY_TIME = ("deadline", "delay", "lease", "live", "archived")
"""What `tick` looks at."""

MOST_READ = 100
"""Tasks read in one call: the recorder reads many, and requests must not wait behind it."""

CRASHED = encode(
    TaskError("replica-crashed", "every replica that ran this task died; it is not tried again")
)


def prefix(deployment: str) -> str:
    """What every key of a deployment starts with.

    The braces would keep them on one node of a cluster. None is supported: `enqueue` and `route`
    also write `is:{keys}:...`.
    """
    return f"is:{{{deployment}}}:"


async def waits_for_time(redis: "Redis", deployments: Sequence[str]) -> set[str]:
    """Which of these deployments have anything that a tick would move, now or later."""
    with translated():
        pipe = redis.pipeline(transaction=False)
        for name in deployments:
            pipe.exists(*(prefix(name) + index for index in MOVED_BY_TIME))
        found = await pipe.execute()
    return {name for name, keys in zip(deployments, found, strict=True) if keys}


class TaskQueue:
    """The live state of one deployment's tasks in Redis."""

    def __init__(
        self, redis: "Redis", deployment: str, settings: Settings, *, valid: float = VALID
    ) -> None:
        """Touches nothing yet.

        Args:
            redis: a client from `connection.connect`.
            deployment: `model:version`.
            settings: limits and durations.
            valid: seconds in which a submit may reach Redis.
        """
        self.deployment = deployment
        self._redis = redis
        self._prefix = prefix(deployment)
        self._settings = settings
        # Rows and not tasks: one that cannot be decoded is an error for who asked for it only.
        self._reads: Grouper[str, Row] = Grouper(self._rows)
        self.clock = RedisClock()
        self._valid = valid
        self._lease_ms = int(settings.lease * 1000)
        self._rules = _breaker_rules(settings)

    async def _run(self, name: str, *args: scripts.Argument) -> Any:
        with translated():
            return await scripts.run(self._redis, name, self._prefix, args)

    async def enqueue(
        self,
        submits: Sequence[Submit],
        api: str = "",
        max_queue: int | None = None,
        version: int = 1,
        first_sent: float | None = None,
    ) -> list[Accepted]:
        """Accepts tasks durably: when this returns, Redis has fsynced them. Safe to repeat.

        Args:
            submits: at most a few hundred.
            api: the completion channel of the calling process.
            max_queue: the deployment's own limit; the setting if None.
            version: of the new tasks; more than 1 if history knows them already.
            first_sent: when these were sent for the first time, by `time.monotonic`; None: now.

        Raises:
            QueueUnavailableError: Redis does not answer, or got them too long after that.
        """
        config = self._settings
        texts = LongTexts(after=8)
        tasks: list[str | int] = []
        for spec, encoded, fingerprint, weight, watch, moves, repeats in submits:
            tasks += (
                spec.task_id,
                spec.priority,
                spec.tenant,
                max(1, round(spec.cost / weight * 1000)),
                "" if spec.timeout is None else int(spec.timeout * 1000),
                spec.idempotency_key or "",
                fingerprint,
                texts.place(encoded),
                watch + 2 * moves + 4 * repeats,
            )
        limits = (max_queue or config.max_queue, config.max_tenant_queue, config.max_outbox)
        kept = int(config.idempotency_ttl * 1000)
        arguments = (api, *limits, kept, version, pack(tasks), *texts)
        now, *rows = await self._in_time(first_sent, arguments)
        created_at = now / 1000
        return [
            Accepted(Enqueued(status.decode()), holder.decode(), ahead, created_at)
            for status, holder, ahead in rows
        ]

    async def _in_time(
        self, first_sent: float | None, arguments: Sequence[scripts.Argument]
    ) -> list[Any]:
        """Runs `enqueue`.

        Once more if it came too late, since the clock of Redis may have jumped. But not what was
        sent before: then this machine may have stood still, with its monotonic clock, and what it
        sent is done and forgotten.
        """
        until = (time.monotonic() if first_sent is None else first_sent) + self._valid
        if not self.clock.known:
            self.clock.told(await clock_ms(self._redis))
        for _ in range(2 if first_sent is None else 1):
            answer: list[Any] = await self._run("enqueue", self.clock.at(until), *arguments)
            self.clock.told(answer[0])
            if answer[1:] != [b"late"]:
                return answer
        raise QueueUnavailableError("Redis is reached too late", retry_after=1.0)

    async def claim(self, worker: str, limit: int, full: int = 1) -> list[Claim]:
        """Leases up to `limit` waiting tasks; an empty list if nothing waits.

        A task that cannot be decoded fails.

        Args:
            worker: who claims.
            limit: at most so many; less if other replicas need some.
            full: tasks of a full batch, which it gets while no other replica is idle.
        """
        rows = await self._run("claim", worker, limit, self._lease_ms, full)
        claims: list[Claim] = []
        spoiled: list[Failure] = []
        for key, attempt, crashes, failures, encoded in rows:
            task_id = key.decode()
            try:
                claims.append(Claim(task_id, attempt, crashes, failures, decode_spec(encoded)))
            except UNREADABLE as error:
                spoiled.append(_spoiled(task_id, attempt, worker, error))
        if spoiled:
            await self.fail(worker, spoiled)
        return claims

    async def extend(self, worker: str, held: Sequence[tuple[str, int]]) -> set[str]:
        """Prolongs leases of a replica; returns the ids of tasks that are no longer its own."""
        lost: set[str] = set()
        for some in slices(held):
            answer = await self._run("extend", worker, self._lease_ms, pack(flat(some)))
            lost |= {task_id.decode() for task_id in answer}
        return lost

    async def complete(self, worker: str, completions: Sequence[Completion]) -> list[str]:
        """Stores results. Safe to repeat. Returns `ok`, `again` or `stale` for each."""
        statuses: list[str] = []
        for some in slices(completions, size=lambda completion: len(completion.result)):
            texts = LongTexts(after=3)
            tasks: list[str | int] = []
            for task_id, attempt, result, ref, execution in some:
                tasks += (task_id, attempt, texts.place(result), ref, execution.decode())
            answer = await self._run("complete", self._rules, worker, pack(tasks), *texts)
            statuses += [status.decode() for status in answer]
        return statuses

    async def fail(self, worker: str, failures: Sequence[Failure]) -> list[str]:
        """Ends failed attempts. Returns `retry`, `failed` or `stale` for each."""
        statuses: list[str] = []
        for some in slices(failures):
            tasks = [
                (
                    task_id,
                    attempt,
                    how,
                    int(delay * 1000),
                    error.decode(),
                    run.decode(),
                    int(engine),
                )
                for task_id, attempt, how, delay, error, run, engine in some
            ]
            most = self._settings.max_attempts
            answer = await self._run("fail", self._rules, most, worker, pack(flat(tasks)))
            statuses += [status.decode() for status in answer]
        return statuses

    async def release(self, worker: str, held: Sequence[tuple[str, int]]) -> int:
        """Gives tasks back with no attempt charged; returns how many were still held."""
        back = [await self._run("release", worker, pack(flat(some))) for some in slices(held)]
        return sum(back)

    async def cancel(self, task_id: str) -> TaskState | None:
        """Cancels unless finished; returns the state it is in now, None if unknown."""
        state = await self._run("cancel", task_id)
        return TaskState(state.decode()) if state else None

    async def holder(self, tenant: str, key: str, *, give_up: bool = False) -> str | None:
        """The id of the task that has an idempotency key here, None if there is none.

        Args:
            tenant: whose key.
            key: the key.
            give_up: whether another deployment may take the key if there is none. From then on, for
                longer than any request takes, it is refused here as by an open circuit.
        """
        held = await self._run("holder", tenant, key, int(give_up))
        return held.decode() if held else None

    async def free(self, tenant: str, key: str, task_id: str = "") -> None:
        """Frees an idempotency key whose task was purged, or that this queue gave up.

        A task that has taken it meanwhile keeps it.

        Args:
            tenant: whose key.
            key: the key.
            task_id: the task that was purged; empty if the key was given up.
        """
        await self._run("free", tenant, key, task_id)

    async def watch(self, task_id: str, api: str) -> TaskState | None:
        """Has the channel `api` told when the task finishes; returns its state, None if unknown."""
        state = await self._run("watch", api, task_id)
        return TaskState(state.decode()) if state else None

    async def tick(self) -> tuple[int, int, int, int]:
        """Moves what time moves; returns how many expired, were promoted, reaped, crashed out."""
        config = self._settings
        kept = int(config.archived_ttl * 1000)
        most = config.max_crashes
        moved = await self._run(
            "tick", TICK_LIMIT, most, CRASHED, kept, self._rules, self._lease_ms
        )
        expired, promoted, reaped, crashed = moved
        return expired, promoted, reaped, crashed

    async def heartbeat(self, status: ReplicaStatus) -> str:
        """Marks a replica as live for the next five seconds; returns its note, see `Notes`."""
        note = await self._run("heartbeat", status.worker, encode(status))
        return note.decode() if note else ""

    async def leave(self, worker: str) -> None:
        """Takes a replica off the live ones at once."""
        await self._run("heartbeat", worker, "")

    async def get(self, task_id: str) -> Task | None:
        """The task with its live state, None if Redis does not have it.

        Of one whose spec is spoiled, nothing but who asked for it and what became of it.
        """
        row = await self._reads.ask(task_id)
        try:
            return decode_task(row)
        except UNREADABLE:
            return decode_task(without_spec(row, task_id, self.deployment))

    async def position(self, task_id: str, priority: Priority) -> int | None:
        """Its place among those that wait, from 1; None if it is not among them.

        Lanes are served high first, as `enqueue` counts; the share kept for low is left out.
        """
        lanes = list(Priority)
        lane = lanes.index(priority)
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrank(f"{self._prefix}w:{priority}", task_id)
            for higher in lanes[:lane]:
                pipe.zcard(f"{self._prefix}w:{higher}")
            rank, *counts = await pipe.execute()
        return None if rank is None else int(rank) + sum(counts) + 1

    async def load(self, task_ids: Sequence[str]) -> list[Task | None]:
        """Many tasks with their live state, in the same order."""
        return [decode_task(row) for row in await self._rows(task_ids)]

    async def _rows(self, task_ids: Sequence[str]) -> list[Row]:
        found: list[Row] = []
        for some in slices(task_ids, most=MOST_READ):
            found += await self._run("load", pack(some))
        return found


def _spoiled(task_id: str, attempt: int, worker: str, error: Exception) -> Failure:
    told = TaskError("unreadable-task", f"Redis holds it spoiled: {error}")
    run = encode(Execution(worker))
    return Failure(task_id, attempt, Retry.FINAL, 0.0, encode(told), run, engine=False)


def _breaker_rules(settings: Settings) -> str:
    """What `judge` in `breaker.lua` goes by."""
    if not settings.breaker:
        return ""
    window, pause = settings.breaker_window * 1000, settings.breaker_pause * 1000
    volume, ratio, crashes = (
        settings.breaker_volume,
        settings.breaker_ratio,
        settings.breaker_crashes,
    )
    return f"{window:.0f} {volume} {ratio} {crashes} {pause:.0f}"
