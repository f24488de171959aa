"""Ten times more than can be done: whoever sends little is served, and memory stays bounded."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import NamedTuple

import pytest

from inferstack.api.tokens import Tokens
from inferstack.client.load import LoadReport
from inferstack.lifecycle.types import Caller
from tests.faults import crowd
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import Ledger
from tests.faults.tally import NOTES

CONFIG = """
engine: python
device: cpu
batch: {max_size: 2, max_wait_ms: 0}
timeout: 10
"""
REPLICAS = 4
SLEEPS = (60, 80, 100, 120)
"""Milliseconds that a batch of the flood takes, differing so that replicas do not beat together."""
CAPACITY = REPLICAS * 2 / 0.1
"""Tasks a second, roughly."""
FLOOD = 10 * CAPACITY
ROOM = 300
"""Unfinished tasks that one tenant may have; the rest of the flood is refused."""
KEPT = 30.0
"""Seconds for which Redis keeps what is archived: a short flood, to be checked, and not a long one,
or memory would not stay bounded."""
WINDOWS = 3
QUIET = 10.0
"""Requests a second of a quiet tenant."""
GROWTH = 48.0
"""Megabytes by which a process may grow from the first third of a flood to its end."""


class Crowd(NamedTuple):
    """What a flood came to."""

    windows: list[LoadReport]
    """Of the quiet tenant, while it went on."""
    flood: LoadReport
    grown: dict[str, float]
    """Megabytes, by process."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(
        replicas=REPLICAS,
        model_config=CONFIG,
        max_batch_wait_ms=0,
        max_tenant_queue=ROOM,
        archived_ttl=KEPT,
    ) as running:
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))


def bearer(cluster: Cluster, tenant: str) -> dict[str, str]:
    secret = cluster.settings.secret_key
    assert secret is not None
    token = Tokens(secret.get_secret_value(), 3600).issue(Caller(tenant, tenant))
    return {"authorization": f"Bearer {token}"}


def flood(cluster: Cluster, ledger: Ledger, seconds: float, priority: str) -> crowd.Submits:
    ledger.tally.faults += 1
    return crowd.submits(
        cluster,
        ledger,
        round(FLOOD * seconds),
        priority=priority,
        sleeps=SLEEPS,
        headers=bearer(cluster, "flooding"),
        rate=FLOOD,
        duration=seconds,
    )


async def quiet(cluster: Cluster, ledger: Ledger, seconds: float) -> LoadReport:
    headers = bearer(cluster, "quiet")
    return await crowd.probe(
        cluster, ledger, rate=QUIET, seconds=seconds, sleeps=[120], headers=headers
    )


async def through(cluster: Cluster, ledger: Ledger, elsewhere: Executor, seconds: float) -> Crowd:
    """Measures a quiet tenant in windows while another one floods."""
    pids = {"API": cluster.api.pid, "Redis": cluster.redis.pid}
    flooding = asyncio.create_task(
        flood(cluster, ledger, seconds, "normal").run_elsewhere(elsewhere)
    )
    await until(lambda: _full(cluster))
    windows, before = list[LoadReport](), dict[str, float]()
    for _ in range(WINDOWS):
        windows.append(await quiet(cluster, ledger, seconds / WINDOWS - 1))
        before = before or {name: crowd.memory(pid) for name, pid in pids.items()}
    assert not flooding.done(), "the flood ended before the measurement did"
    report = await flooding
    grown = {name: crowd.memory(pid) - before[name] for name, pid in pids.items()}
    return Crowd(windows, report, grown)


async def _full(cluster: Cluster) -> bool:
    return await crowd.gauge(cluster, "queue_depth{") >= ROOM / 2


async def _empty(cluster: Cluster) -> bool:
    waiting = await crowd.gauge(cluster, "queue_depth{")
    return waiting + await crowd.gauge(cluster, "inferstack_queue_running{") == 0


async def checked(cluster: Cluster, ledger: Ledger) -> None:
    """Not through the API, whose anonymous callers see nothing of these tenants."""
    await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url, asked=0)


@pytest.mark.alone
@pytest.mark.timeout(240)
async def test_a_flood_of_one_tenant_leaves_the_others_alone(
    cluster: Cluster, elsewhere: Executor, long: bool
) -> None:
    """The middle window counts: one in which the machine did something else does not."""
    ledger = Ledger(MODEL, cluster.objects, kept=cluster.settings.archived_ttl)
    async with cluster.kept():
        idle = [await quiet(cluster, ledger, 2) for _ in range(WINDOWS)]
        found = await through(cluster, ledger, elsewhere, 60 if long else 9)
        ended = time.monotonic()
        after = await quiet(cluster, ledger, 2)
        await until(lambda: _empty(cluster), 15)
        recovered = time.monotonic() - ended
        await checked(cluster, ledger)
    alone, beside = crowd.median(idle, "p95"), crowd.median(found.windows, "p95")
    refused = found.flood.statuses.get(429, 0)
    NOTES.append(
        f"flood of {found.flood.sent} at {FLOOD:.0f}/s, {refused} refused: p95 of a quiet tenant "
        f"{alone:.0f} ms without, {beside:.0f} ms beside it; grown by "
        + ", ".join(f"{name} {size:.0f} MB" for name, size in found.grown.items())
        + f"; idle again after {recovered:.1f} s"
    )
    assert set(found.flood.statuses) == {202, 429}, found.flood
    assert not found.flood.errors, found.flood
    assert refused > found.flood.sent / 2, "it was no flood"
    assert beside <= 2 * alone, (idle, found.windows)
    assert after.latency_ms["p50"] <= 2 * alone
    assert max(found.grown.values()) < GROWTH


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_low_priority_moves_while_high_priority_floods(
    cluster: Cluster, elsewhere: Executor
) -> None:
    ledger = Ledger(MODEL, cluster.objects, kept=cluster.settings.archived_ttl)
    async with cluster.kept():
        flooding = asyncio.create_task(flood(cluster, ledger, 8, "high").run_elsewhere(elsewhere))
        await until(lambda: _full(cluster))
        low = await crowd.probe(
            cluster,
            ledger,
            rate=4,
            seconds=4,
            priority="low",
            sleeps=[120],
            headers=bearer(cluster, "patient"),
        )
        assert not flooding.done(), "they were done while the flood went on"
        await flooding
        await until(lambda: _empty(cluster), 15)
        await checked(cluster, ledger)
    NOTES.append(
        f"low priority in a flood of high: p50 {low.latency_ms['p50']:.0f} ms, "
        f"max {low.latency_ms['max']:.0f} ms"
    )
