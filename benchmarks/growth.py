"""What an enqueue costs when much waits already: latency, and Redis CPU per task.

Each queue length has a Redis of its own, filled through the real enqueue script; the
measurements take turns, so that noise hits all of them alike.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from redis import Redis

from benchmarks import payloads
from benchmarks.deploy import cpu_seconds
from benchmarks.processes import Server, free_port
from inferstack import config
from inferstack.local import binaries
from inferstack.queue.codec import encode
from inferstack.queue.connection import connect
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Submit
from inferstack.task import TaskSpec, new_task_id

DEPLOYMENT = "echo:1"
FILL_GROUP = 500
GROUP = 32
"""Tasks in one measured call: what a busy API process commits at once."""
CALLS = 25
ROUNDS = 21
"""Turns; the middle one counts, so that what else the machine does for a second changes nothing."""
TENANTS = 20
NO_LIMIT = 100_000_000


class Level(msgspec.Struct, frozen=True):
    """One queue length."""

    queued: int
    enqueue_ms: float
    """Time of one call with `GROUP` tasks, fsync included."""
    redis_us_per_task: float
    """Redis CPU."""
    memory_mib: float


class _Filled:
    """A Redis with a paused deployment in which tasks wait."""

    def __init__(self, port: int, queued: int) -> None:
        url = f"redis://127.0.0.1:{port}/0"
        self.queued = queued
        self.info = Redis.from_url(url)
        self.client = connect(url)
        unlimited = config.load(max_queue=NO_LIMIT, max_tenant_queue=NO_LIMIT, max_outbox=NO_LIMIT)
        self.queue = TaskQueue(self.client, DEPLOYMENT, unlimited)
        self.taken: list[float] = []
        self.cpu: list[float] = []

    async def fill(self) -> None:
        """Puts the tasks in; without fsync, which the filling does not need."""
        self.info.config_set("appendfsync", "no")
        self.info.config_set("auto-aof-rewrite-percentage", 0)
        for first in range(0, self.queued, FILL_GROUP):
            await self.queue.enqueue(submits(min(FILL_GROUP, self.queued - first)))
        self.info.config_set("appendfsync", "always")
        await self.queue.enqueue(submits(1))

    async def measure(self, calls: int) -> None:
        """One turn. What it put into an empty queue is thrown away afterwards."""
        groups = [submits(GROUP) for _ in range(calls)]
        before, started = cpu_seconds(self.info), time.perf_counter()
        for group in groups:
            await self.queue.enqueue(group)
        self.taken.append((time.perf_counter() - started) / calls)
        self.cpu.append((cpu_seconds(self.info) - before) / (calls * GROUP))
        if not self.queued:
            self.info.flushall()

    def level(self) -> Level:
        memory: dict[str, Any] = self.info.info("memory")
        return Level(
            self.queued,
            round(1000 * median(self.taken), 3),
            round(1e6 * median(self.cpu), 2),
            round(memory["used_memory"] / 2**20, 1),
        )

    async def close(self) -> None:
        self.info.close()
        await self.client.aclose()


def submits(count: int) -> list[Submit]:
    """Fresh tasks of a few tenants."""
    made = []
    for number in range(count):
        spec = TaskSpec(
            task_id=new_task_id(DEPLOYMENT),
            model="echo",
            model_version=1,
            tenant=f"tenant-{number % TENANTS}",
            data={"text": payloads.SENTENCE},
            timeout=None,
        )
        made.append(Submit(spec, encode(spec)))
    return made


def measure(levels: tuple[int, ...], place: Path) -> list[Level]:
    """Measures an enqueue at each queue length.

    Args:
        levels: how many tasks wait.
        place: folder for the append-only files; on a real disk, or `always` means nothing.
    """
    return asyncio.run(_measure(levels, place))


async def _measure(levels: tuple[int, ...], place: Path) -> list[Level]:
    async with AsyncExitStack() as stack:
        filled = []
        for queued in levels:
            port = free_port()
            folder = Path(stack.enter_context(TemporaryDirectory(dir=place)))
            server = stack.enter_context(_redis(port, queued, folder, place))
            await _answers(port, server)
            one = _Filled(port, queued)
            stack.push_async_callback(one.close)
            await one.fill()
            filled.append(one)
        for number in range(ROUNDS):
            for one in filled if number % 2 else reversed(filled):
                await one.measure(CALLS)
        return [one.level() for one in filled]


def _redis(port: int, queued: int, folder: Path, logs: Path) -> Server:
    program = binaries.redis_server()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    return Server(f"growth-redis-{queued}", command, binaries.redis_preload(program), logs)


async def _answers(port: int, server: Server) -> None:
    client = connect(f"redis://127.0.0.1:{port}/0")
    try:
        for _ in range(100):
            try:
                ping: Awaitable[Any] = client.ping()
                await ping
                return
            except Exception as error:
                last = error
                await asyncio.sleep(0.1)
        raise RuntimeError(f"{server.name} does not answer: {last}{server.tail()}")
    finally:
        await client.aclose()
