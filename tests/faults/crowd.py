"""Many clients at once: floods, crowds that wait, and the probe that measures beside them."""

import asyncio
import resource
import statistics
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psutil
import pytest

from inferstack.client.load import Load, LoadReport, run
from tests.faults.cluster import MODEL, Cluster, until

WAIT = "wait=55"
"""Less than MAX_WAIT: longer waits are shortened by the API."""


def submissions(*, priority: str = "normal", **data: Any) -> list[bytes]:
    """The body of a request, for the load generator."""
    body = {"data": data, "model": MODEL, "priority": priority, "timeout": 600}
    return [msgspec.json.encode(body)]


def load(cluster: Cluster, **more: Any) -> Load:
    """Submits to the cluster."""
    given: dict[str, Any] = {"url": f"{cluster.url}/api/inference", "timeout": 60.0}
    return Load(**given | more)


async def probe(
    cluster: Cluster,
    *,
    rate: float,
    seconds: float,
    bodies: Sequence[bytes],
    headers: dict[str, str] | None = None,
) -> LoadReport:
    """Waits for results at a fixed rate; every answer must be one."""
    wanted = {"prefer": WAIT} | (headers or {})
    count = max(1, round(rate * seconds))
    report = await run(
        load(
            cluster,
            bodies=bodies,
            headers=wanted,
            rate=rate,
            duration=seconds + 1.0,
            max_requests=count,
            connections=16,
        )
    )
    assert report.statuses == {200: count}, report
    assert not report.errors, report
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
