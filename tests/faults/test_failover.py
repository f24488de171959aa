"""A failover of Redis: who is connected to what is a replica now is refused, not ended."""

import asyncio
from collections.abc import Iterator

import pytest

from inferstack.client import AsyncClient, Problem, Retries
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.failover import Pair
from tests.faults.ledger import Ledger

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def stack() -> Iterator[tuple[Cluster, Pair]]:
    """All processes reach Redis by the name of the pair."""
    cluster = Cluster()
    pair = Pair(cluster.redis)
    for process in cluster.processes:
        process.env["REDIS_URL"] = pair.url
    with cluster:
        yield cluster, pair
        print(*(f"--- {p.name}\n{cluster.log(p.name)[-3000:]}" for p in cluster.processes))


async def test_a_failover_of_redis_is_503_and_then_everything_goes_on_by_itself(
    stack: tuple[Cluster, Pair],
) -> None:
    cluster, pair = stack
    ledger = Ledger(MODEL, cluster.objects)
    async with pair, cluster.kept():
        load = asyncio.create_task(ledger.load(cluster.url, tasks=200, sleep_ms=5, seed=1))
        await until(lambda: _more(ledger, 20))
        await asyncio.to_thread(pair.demote)
        ledger.tally.faults += 1
        async with AsyncClient(cluster.url, retries=Retries(attempts=1)) as impatient:
            assert await ledger.submit(impatient) is None
        refusal = ledger.refused.pop()
        assert isinstance(refusal, Problem)
        assert refusal.status == 503
        assert refusal.retry_after is not None
        pair.promote()
        await load
        await ledger.check(cluster.url, pair.primary.url, cluster.postgres.url)
        assert not ledger.refused
        assert {process.name: process.ends for process in cluster.processes} == {
            process.name: [] for process in cluster.processes
        }


async def _more(ledger: Ledger, count: int) -> bool:
    return len(ledger.accepted) >= count
