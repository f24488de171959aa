"""Simulated processes: the real classes of `inferstack.queue`, on connections that fail."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ConnectionError, TimeoutError

from inferstack.concurrency import end
from inferstack.deployment import ReplicaStatus
from inferstack.errors import InferstackError, QueueUnavailableError, StorageUnavailableError
from inferstack.queue.codec import encode
from inferstack.queue.committer import GroupCommitter
from inferstack.queue.connection import Redis, connect
from inferstack.queue.notes import Notes
from inferstack.queue.outbox import Outbox
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Accepted, Claim, Completion, Enqueued, Failure, Retry, Submit
from inferstack.recorder.recorder import Recorder, Source
from inferstack.task import Execution, Task, TaskError, TaskSpec, new_task_id
from tests.faults.world import NAME, Intent, World

VALID, PATIENCE, DELAYS = 0.2, 0.1, (0.01, 0.05, 0.1)
"""A submit reaches Redis within their sum or never: that is below `archived_ttl`, as it should."""
LATEST = 1.0
"""Seconds after which a request still arrives: by then its task may be done and forgotten."""

BOOM = encode(TaskError("engine-error", "on purpose", retryable=True))


def flaky(world: World) -> Redis:
    """A client whose requests and replies get lost, or arrive when nobody expects them."""
    redis = connect(str(world.settings.redis_url))
    world.clients.append(redis)
    real: Callable[..., Awaitable[Any]] = redis.execute_command

    async def deliver(pause: float, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        await asyncio.sleep(pause)
        with contextlib.suppress(Exception):
            await real(*args, **options)

    async def execute(*args: Any, **options: Any) -> Any:
        draw = world.rng.random() if world.faults else 1.0
        if draw >= 0.05:
            return await real(*args, **options)
        world.tally.faults += 1
        if draw < 0.012:
            raise ConnectionError("the request is lost")
        if draw < 0.03:
            await real(*args, **options)
            raise ConnectionError("the reply is lost")
        if draw < 0.042:
            # Its sender has given it up, and it still arrives: it sat in some buffer.
            task = asyncio.create_task(deliver(world.rng.uniform(0, LATEST), args, options))
            world.late.add(task)
            task.add_done_callback(world.late.discard)
            raise TimeoutError("the request is late")
        await asyncio.sleep(world.rng.uniform(0, 0.3))
        return await real(*args, **options)

    redis.execute_command = execute  # type: ignore[method-assign]
    return redis


class Actor:
    """A process that can be killed at any await, and then lives again as another one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._life: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Lives one life after the other."""
        while True:
            self._life = asyncio.create_task(self._live())
            await asyncio.wait({self._life})
            if not self._life.cancelled():
                self._life.result()

    async def _live(self) -> None:
        redis = flaky(self.world)
        try:
            await self.live(redis)
        finally:
            await redis.connection_pool.disconnect(inuse_connections=True)

    async def end(self) -> None:
        """Ends the last life, once `run` begins no other."""
        await end(self._life)

    def kill(self) -> None:
        """Ends the life at whatever it waits for."""
        if self._life is not None:
            self._life.cancel()

    async def live(self, redis: Redis) -> None:
        raise NotImplementedError


class Slip:
    """A ticket that tells a client what became of its submit."""

    def __init__(self, submit: Submit) -> None:
        self.submit = submit
        self.future: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()

    def accepted(self, answer: Accepted) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def refused(self, error: InferstackError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Api(Actor):
    """Commits what clients hand in."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.committer: GroupCommitter | None = None
        self._slips: set[Slip] = set()

    async def live(self, redis: Redis) -> None:
        queue = TaskQueue(redis, NAME, self.world.settings, valid=VALID)
        self.committer = GroupCommitter(queue, "api", patience=PATIENCE, delays=DELAYS)
        try:
            await asyncio.Event().wait()
        finally:
            commits = tuple(self.committer._committing)
            self.committer = None
            for commit in commits:
                await end(commit)
            for slip in self._slips:
                slip.refused(QueueUnavailableError("the connection is reset"))

    async def submit(self, submit: Submit) -> Accepted:
        """One request and its answer."""
        if self.committer is None:
            raise QueueUnavailableError("nobody listens")
        slip = Slip(submit)
        self._slips.add(slip)
        try:
            self.committer.add(slip)
            return await slip.future
        finally:
            self._slips.discard(slip)


class Client:
    """Submits, repeats under a key, cancels, and looks."""

    def __init__(self, world: World, apis: Sequence[Api]) -> None:
        self.world = world
        self._apis = apis

    async def run(self) -> None:
        """Wants one thing after the other while the world is open."""
        while self.world.open:
            intent = self.world.intend()
            await self._ask(intent)
            await asyncio.sleep(self.world.rng.uniform(0, 0.01))

    async def _ask(self, intent: Intent) -> None:
        while True:
            spec = TaskSpec(
                task_id=new_task_id(NAME),
                model="echo",
                model_version=1,
                tenant=intent.tenant,
                data={"payload": intent.payload, "fails": intent.fails},
                priority=intent.priority,
                timeout=intent.timeout,
                idempotency_key=intent.key,
            )
            intent.asked.add(spec.task_id)
            submit = Submit(spec, encode(spec), intent.payload if intent.key else "")
            try:
                answer = await self.world.rng.choice(self._apis).submit(submit)
            except InferstackError:
                if intent.key is None:
                    return  # it may exist or not, and nobody will ask again
                await asyncio.sleep(0.02)
                continue
            if answer.status in (Enqueued.OK, Enqueued.DUPLICATE):
                self.world.accept(intent, answer.task_id)
                return
            await asyncio.sleep(0.02)


class Reader(Actor):
    """Looks at tasks, and cancels a few."""

    async def live(self, redis: Redis) -> None:
        world, queue = self.world, TaskQueue(redis, NAME, self.world.settings)
        while True:
            await asyncio.sleep(0.003)
            known = [intent for intent in world.intents.values() if intent.accepted]
            if not known:
                continue
            intent = world.rng.choice(known[-200:])
            task_id = str(intent.accepted)
            with contextlib.suppress(InferstackError):
                if world.open and world.rng.random() < 0.02:
                    intent.cancelled = True
                    await queue.cancel(task_id)
                task = await queue.get(task_id) or world.history.get(task_id)
                if task is None:
                    world.lose(f"I1: {task_id} was accepted and is nowhere")
                else:
                    world.see(task, "Redis or history")


class Replica(Actor):
    """Claims, computes, completes; now and then it sleeps through its leases."""

    async def live(self, redis: Redis) -> None:
        world = self.world
        worker = f"host:1:{uuid.uuid4().hex[:8]}"
        queue = TaskQueue(redis, NAME, world.settings)
        notes = Notes(str(world.settings.redis_url), NAME, worker, 60)
        try:
            while True:
                with contextlib.suppress(InferstackError):
                    await queue.heartbeat(ReplicaStatus(worker=worker))
                    await queue.tick()
                    claims = await queue.claim(worker, world.rng.randint(1, 12))
                    for claim in claims:
                        newest = max(claim.attempt, world.claimed.get(claim.task_id, 0))
                        world.claimed[claim.task_id] = newest
                    if claims:
                        await self._work(queue, notes, worker, claims)
                await asyncio.sleep(0.002)
        finally:
            with contextlib.suppress(Exception):
                await notes.close()

    async def _work(
        self, queue: TaskQueue, notes: Notes, worker: str, claims: Sequence[Claim]
    ) -> None:
        world, rng = self.world, self.world.rng
        held = [(claim.task_id, claim.attempt) for claim in claims]
        if world.faults and rng.random() < 0.05:
            await _insist(lambda: queue.release(worker, held))
            return
        # Whether the note arrived or not, these begin: they may count as crashed.
        for task_id, attempt in held:
            world.begun[task_id].add(attempt)
        await _insist(lambda: notes.write(held))
        if world.faults and rng.random() < 0.1:
            world.tally.faults += 1
            # Often just past its end: then another replica has the tasks, and is not done yet.
            await asyncio.sleep(
                world.settings.lease * rng.choice((rng.uniform(0.5, 3), rng.uniform(1, 1.2)))
            )
        else:
            await asyncio.sleep(rng.uniform(0, 0.02))
            if rng.random() < 0.3:
                await queue.extend(worker, held)
        run = encode(Execution(worker))
        good = [claim for claim in claims if not claim.spec.data["fails"]]
        await self._complete(queue, worker, [_completion(claim, run) for claim in good])
        bad = [
            Failure(c.task_id, c.attempt, Retry.CHARGED, rng.uniform(0, 0.05), BOOM, run)
            for c in claims
            if c.spec.data["fails"]
        ]
        if bad:
            await _insist(lambda: queue.fail(worker, bad))

    async def _complete(self, queue: TaskQueue, worker: str, done: list[Completion]) -> None:
        if not done:
            return
        newest = {item.task_id: self.world.claimed.get(item.task_id, 0) for item in done}
        statuses = await _insist(lambda: queue.complete(worker, done))
        for item, status in zip(done, statuses, strict=True):
            if status in ("ok", "again"):
                self.world.complete(item, newest[item.task_id], again=status == "again")


class History:
    """What the recorder writes to; it fails before and after its commit."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def upsert(self, tasks: Sequence[Task]) -> set[str]:
        world = self._world
        await asyncio.sleep(world.rng.uniform(0, 0.005))
        draw = world.rng.random() if world.faults else 1.0
        if draw < 0.05:
            world.tally.faults += 1
            raise StorageUnavailableError("before the commit")
        new = world.store(tasks)
        if draw < 0.1:
            world.tally.faults += 1
            raise StorageUnavailableError("after the commit")
        await asyncio.sleep(world.rng.uniform(0, 0.005))
        return new


class Archiver(Actor):
    """The real recorder."""

    def source(self, redis: Redis) -> Source:
        """Where changes come from."""
        return Outbox(redis, [NAME], self.world.settings)

    async def live(self, redis: Redis) -> None:
        await Recorder(self.source(redis), History(self.world), linger=0.005).run()


def _completion(claim: Claim, run: bytes) -> Completion:
    result = encode({"payload": claim.spec.data["payload"], "attempt": claim.attempt})
    return Completion(claim.task_id, claim.attempt, result, "", run)


async def _insist(call: Callable[[], Awaitable[Any]]) -> Any:
    while True:
        try:
            return await call()
        except QueueUnavailableError:
            await asyncio.sleep(0.02)
