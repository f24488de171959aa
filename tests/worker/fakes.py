"""A queue in memory with the promises of `ReplicaSession`, and engines that obey."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from inferstack.batching import CostFit
from inferstack.config import Settings, load
from inferstack.deployment import Deployment, ReplicaStatus
from inferstack.engines.base import Prepared
from inferstack.errors import InferstackError, QueueUnavailableError
from inferstack.lifecycle.replica import Lease
from inferstack.task import Execution, Priority, TaskError, TaskSpec
from inferstack.worker.loop import Worker


def settings(**overrides: Any) -> Settings:
    return load(redis_url="redis://127.0.0.1:1/0", **overrides)


def lease(number: int, data: Any = None, *, crashes: int = 0) -> Lease:
    spec = TaskSpec(
        task_id=f"task-{number}",
        model="fake",
        model_version=1,
        tenant="local",
        data={"n": number} if data is None else data,
        priority=Priority.NORMAL,
    )
    return Lease(spec.task_id, 1, crashes, spec)


class MemorySession:
    """Keeps what a worker did, in order."""

    def __init__(self, leases: Sequence[Lease] = ()) -> None:
        self.worker = "host:1:abc"
        self.stale = self.retried = self.reaped = 0
        self.inline_limit = 1000
        self.waiting = list(leases)
        self.expected = len(self.waiting)
        self.done: dict[str, tuple[bytes, Execution]] = {}
        self.failed: dict[str, TaskError] = {}
        self.released: list[str] = []
        self.begun: list[list[str]] = []
        self.extended: list[list[str]] = []
        self.calls: list[str] = []
        self.lost: set[str] = set()
        self.statuses: list[ReplicaStatus] = []
        self.left = False
        self.broken = 0
        self.finished = asyncio.Event()
        self.bell = asyncio.Event()
        self.drop: Callable[[str], object] = lambda _: None

    async def listen(self, drop: Callable[[str], object], /) -> None:
        self.drop = drop
        await asyncio.Event().wait()

    def submit(self, leases: Sequence[Lease]) -> None:
        self.waiting += leases
        self.expected += len(leases)
        self.bell.set()

    def _answer(self, call: str) -> None:
        self.calls.append(call)
        if self.broken:
            self.broken -= 1
            raise QueueUnavailableError

    def _settle(self) -> None:
        if len(self.done) + len(self.failed) + len(self.released) >= self.expected:
            self.finished.set()

    async def claim(self, limit: int) -> list[Lease]:
        self._answer("claim")
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    async def wait(self, seconds: float, /) -> None:
        self.bell.clear()
        try:
            async with asyncio.timeout(min(seconds, 0.05)):
                await self.bell.wait()
        except TimeoutError:
            return

    async def begin(self, leases: Sequence[Lease]) -> None:
        self._answer("begin")
        self.begun.append([lease.task_id for lease in leases])

    async def complete(self, done: Sequence[tuple[Lease, bytes, Execution]]) -> None:
        self._answer("complete")
        for held, body, execution in done:
            assert held.task_id not in self.done
            self.done[held.task_id] = (body, execution)
        self._settle()

    async def fail(self, failed: Sequence[tuple[Lease, TaskError, Execution]]) -> None:
        self._answer("fail")
        for held, error, _ in failed:
            self.failed[held.task_id] = error
        self._settle()

    async def release(self, leases: Sequence[Lease]) -> None:
        self._answer("release")
        self.released += [lease.task_id for lease in leases]
        self._settle()

    async def extend(self, leases: Sequence[Lease]) -> set[str]:
        self._answer("extend")
        self.extended.append([lease.task_id for lease in leases])
        return self.lost & {lease.task_id for lease in leases}

    async def heartbeat(self, status: ReplicaStatus) -> None:
        self._answer("heartbeat")
        self.statuses.append(status)

    async def leave(self) -> None:
        self.left = True


class HangingStore(MemorySession):
    """Takes large results and does not answer until told."""

    def __init__(self, leases: Sequence[Lease] = ()) -> None:
        super().__init__(leases)
        self.answers = asyncio.Event()
        self.storing: set[str] = set()

    async def complete(self, done: Sequence[tuple[Lease, bytes, Execution]]) -> None:
        large = {held.task_id for held, body, _ in done if len(body) > self.inline_limit}
        self.storing |= large
        if large:
            await self.answers.wait()
        self.storing -= large
        await super().complete(done)


class FakeEngine:
    """Calls a function with each batch and keeps the batches."""

    device = "cpu"
    prepares_quickly = True
    prepares_by_model = False

    def __init__(self, function: Callable[[list[Any]], list[Any]] | None = None) -> None:
        self.batches: list[list[Any]] = []
        self._function = function or (lambda values: values)

    def prepare(self, inputs: list[Any]) -> list[Prepared | InferstackError]:
        return [
            data["error"] if "error" in data else Prepared(data, float(data.get("cost", 1.0)))
            for data in inputs
        ]

    def predict(self, values: list[Any]) -> list[Any]:
        self.batches.append(values)
        return self._function(values)

    def warm_up(self, fit: CostFit) -> None:
        return

    def close(self) -> None:
        return


def deployment(**overrides: Any) -> Deployment:
    return Deployment(model="fake", version=1, **overrides)


async def work_off(session: MemorySession, engine: Any, **options: Any) -> Worker:
    """Runs a worker until every task of the session is settled, then drains it."""
    options.setdefault("deployment", deployment(batch_size=32))
    options.setdefault("settings", settings())
    worker = Worker(session, engine, options.pop("deployment"), options.pop("settings"), **options)
    running = asyncio.create_task(worker.run())
    settled = asyncio.create_task(session.finished.wait())
    await asyncio.wait([running, settled], timeout=20, return_when=asyncio.FIRST_COMPLETED)
    settled.cancel()
    worker.drain()
    await asyncio.wait_for(running, 10)
    return worker


def slowly(seconds: float) -> Callable[[list[Any]], list[Any]]:
    def function(values: list[Any]) -> list[Any]:
        time.sleep(seconds)
        return values

    return function
