"""kill -9 at every named failpoint, under load."""

import random

import pytest

from inferstack.failpoint import NAMES
from tests.faults.cluster import MODEL, Cluster
from tests.faults.ledger import Ledger

LOAD = 150


@pytest.mark.timeout(180)
@pytest.mark.parametrize("failpoint", sorted(NAMES))
async def test_a_process_killed_at_a_failpoint_loses_nothing(
    cluster: Cluster, failpoint: str, seed: int
) -> None:
    rng = random.Random(f"{seed} {failpoint}")
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept():
        starts = sum(process.starts for process in cluster.processes)
        # The recorder lingers between its batches: of it, fewer pass.
        cluster.arm(failpoint, rng.randint(1, 2 if "archive" in failpoint else 6))
        await ledger.load(cluster.url, tasks=LOAD, sleep_ms=5, seed=rng.randrange(1000))
        await cluster.fired()
        ledger.tally.faults += 1
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
        await cluster.ready()
        assert sum(process.starts for process in cluster.processes) == starts + 1
    assert not ledger.refused
    assert len(ledger.accepted) == LOAD
