"""Many clients at once: floods, crowds that wait, and the probe that measures beside them."""

import asyncio
import resource
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import psutil
import pytest

from inferstack.client.load import Answer, Load, LoadReport, run, run_blocking
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import Ledger

WAIT = "wait=55"
"""Less than MAX_WAIT: longer waits are shortened by the API."""


class Submits(NamedTuple):
    """A load whose every submit is in a ledger."""

    load: Load
    ledger: Ledger
    payloads: list[str]
    """Of the submits, in their order."""

    async def run(self) -> LoadReport:
        """Sends it, and notes what was answered."""
        kept: list[Answer] = []
        return self.note(await run(self.load, kept), kept)

    async def run_elsewhere(self, elsewhere: Executor) -> LoadReport:
        """Sends it from another process."""
        running = asyncio.get_running_loop().run_in_executor(elsewhere, _run, self.load)
        return self.note(*await running)

    def note(self, report: LoadReport, kept: Sequence[Answer]) -> LoadReport:
        """Who got a good answer was promised a task; who was refused must have none."""
        assert not report.errors, report
        for number, status, body in kept:
            self.ledger.hear(self.payloads[number], status, body)
        good = {number for number, _, _ in kept}
        self.ledger.denied.update(
            payload
            for number, payload in enumerate(self.payloads[: report.sent])
            if number not in good
        )
        return report


def _run(load: Load) -> tuple[LoadReport, list[Answer]]:
    kept: list[Answer] = []
    return run_blocking(load, kept), kept


def submits(
    cluster: Cluster,
    ledger: Ledger,
    count: int,
    *,
    priority: str = "normal",
    sleeps: Sequence[int] = (0,),
    **more: Any,
) -> Submits:
    """So many submits to the cluster, none like the other.

    Args:
        cluster: takes them.
        ledger: gets them.
        count: at most; fewer are sent if the load ends before.
        priority: of the tasks.
        sleeps: milliseconds that batches take, in turn.
        more: of the load.
    """
    inputs = [ledger.intend(sleep_ms=sleeps[number % len(sleeps)]) for number in range(count)]
    rest = {"model": MODEL, "priority": priority, "timeout": 600}
    bodies = [msgspec.json.encode({"data": data, **rest}) for data in inputs]
    wanted = load(cluster, bodies=bodies, max_requests=count, **more)
    return Submits(wanted, ledger, [data["payload"] for data in inputs])


def load(cluster: Cluster, **more: Any) -> Load:
    """Requests to the cluster."""
    given: dict[str, Any] = {"url": f"{cluster.url}/api/inference", "timeout": 60.0}
    return Load(**given | more)


async def probe(
    cluster: Cluster,
    ledger: Ledger,
    *,
    rate: float,
    seconds: float,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> LoadReport:
    """Waits for results at a fixed rate; every answer must be one."""
    wanted = {"prefer": WAIT} | (headers or {})
    count = max(1, round(rate * seconds))
    timing: dict[str, Any] = {"rate": rate, "duration": seconds + 1.0, "connections": 16}
    report = await submits(cluster, ledger, count, headers=wanted, **timing, **more).run()
    assert report.statuses == {200: count}, report
    return report


def median(reports: Sequence[LoadReport], name: str) -> float:
    """The middle one of a percentile over several measurements, in milliseconds."""
    return statistics.median(report.latency_ms[name] for report in reports)


def best(reports: Sequence[LoadReport], name: str) -> float:
    """The best of a percentile: what the machine does beside the test only adds to it."""
    return min(report.latency_ms[name] for report in reports)


async def gauge(cluster: Cluster, name: str) -> float:
    """A metric, summed over the API processes."""
    async with cluster.http() as http:
        text = (await http.get("/metrics")).text
    assert f"# TYPE {name.rstrip('{')} " in text, f"there is no metric {name}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def at_least(cluster: Cluster, name: str, wanted: float) -> None:
    """Returns once a metric is so high."""

    async def look() -> bool:
        return await gauge(cluster, name) >= wanted

    await until(look)


def memory(pid: int) -> float:
    """Megabytes that a process has in memory."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def few_files() -> Callable[[], None]:
    """Gives this process, and those that it starts, the 1,024 files of a usual shell.

    Returns:
        What gives this process alone as many as the system allows.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, most), most))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def need_files(count: int) -> None:
    """Skips, loudly, where the system does not allow so many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count:
        pytest.skip(f"NOT TESTED: it takes {count} open files, `ulimit -Hn` says {most}")


@asynccontextmanager
async def slow_clients(cluster: Cluster, count: int) -> AsyncIterator[None]:
    """Connections that send a byte a second: half of them a head, the others a body."""
    head = b"POST /api/inference HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "
    body = b"Content-Type: application/json\r\nContent-Length: 10000\r\n\r\n"
    starts = (head, head[: head.index(b"X-Slow")] + body)
    writers: list[asyncio.StreamWriter] = []

    async def drip() -> None:
        while True:
            for part in range(10):
                for writer in writers[part::10]:
                    writer.write(b" ")
                await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    try:
        for number in range(count):
            _, writer = await asyncio.open_connection("127.0.0.1", cluster.port)
            writer.write(starts[number % 2])
            writers.append(writer)
        yield
        assert not any(writer.is_closing() for writer in writers)
    finally:
        dripping.cancel()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(dripping, return_exceptions=True)
