"""Slow clients and thousands that wait: whoever is not one of them notices nothing."""

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from inferstack.client import AsyncClient, Task
from inferstack.client.load import Answer, LoadReport, run
from tests.faults import crowd
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import Ledger
from tests.faults.process import Process
from tests.faults.tally import NOTES

SLOW = 500
ROUNDS = 5
CROWD, LARGE_CROWD = 1000, 5000
PROBE = 50.0
"""Requests a second."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Its API may open 1,024 files unless it asks for more; no batch waits for company."""
    raise_limit = crowd.few_files()
    with Cluster(max_batch_wait_ms=0) as running:
        raise_limit()
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_healthy_clients_do_not_notice_five_hundred_slow_ones(cluster: Cluster) -> None:
    """Whatever else the machine does makes a round worse, never better: the best ones count."""
    crowd.need_files(2 * SLOW)
    without, beside = list[LoadReport](), list[LoadReport]()
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept():
        await crowd.probe(cluster, ledger, rate=PROBE, seconds=1)
        for done in range(ROUNDS):
            without.append(await crowd.probe(cluster, ledger, rate=PROBE, seconds=2))
            async with crowd.slow_clients(cluster, SLOW):
                ledger.tally.faults += 1
                await crowd.at_least(cluster, "inferstack_http_connections{", SLOW)
                beside.append(await crowd.probe(cluster, ledger, rate=PROBE, seconds=2))
            alone, among = crowd.best(without, "p99"), crowd.best(beside, "p99")
            if done and among <= 2 * alone:
                break
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    NOTES.append(f"{SLOW} slow clients: p99 {alone:.0f} ms without, {among:.0f} ms beside them")
    assert among <= 2 * alone, (without, beside)


@pytest.mark.alone
@pytest.mark.timeout(180)
async def test_thousands_wait_and_nobody_is_held_up(cluster: Cluster, long: bool) -> None:
    """As many wait for tasks of their own as watch one; then a replica comes, and all are told."""
    size = LARGE_CROWD if long else CROWD
    crowd.need_files(3 * size)
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept():
        for replica in cluster.replicas:
            replica.wanted = False
            replica.signal(signal.SIGTERM)
        await until(lambda: _gone(cluster.replicas))
        ledger.tally.faults += 1
        async with AsyncClient(cluster.url) as client:
            first = await ledger.submit(client)
        each: dict[str, Any] = {"connections": size, "duration": 60.0}
        waiting = crowd.submits(cluster, ledger, size, headers={"prefer": crowd.WAIT}, **each)
        url = f"{cluster.url}/api/inference/{first}?wait=55"
        watching, told = crowd.load(cluster, url=url, max_requests=size, **each), list[Answer]()
        everybody = asyncio.gather(waiting.run(), run(watching, told))
        await crowd.at_least(cluster, "inferstack_http_requests_in_flight{", 2 * size)
        measured = await crowd.submits(
            cluster, ledger, round(4 * PROBE), rate=PROBE, duration=4.0, connections=16
        ).run()
        for replica in cluster.replicas:
            replica.wanted = True
        reports = await everybody
        for answer in told:
            ledger.see(msgspec.json.decode(answer.body, type=Task))
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    NOTES.append(
        f"{size} waiting and {size} watching: p99 of a submit beside them "
        f"{measured.latency_ms['p99']:.0f} ms"
    )
    assert set(measured.statuses) == {202}, measured
    assert [(report.statuses, report.errors) for report in reports] == [({200: size}, {})] * 2


async def _gone(processes: list[Process]) -> bool:
    return all(process.dead for process in processes)
