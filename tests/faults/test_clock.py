"""Clocks that jump by an hour: only that of Redis counts.

There is no way to shift the clock that one process gets from the kernel without help from
outside (libfaketime), so what jumps is what Python tells: `time.time` and `time.time_ns`.
"""

import signal
from collections.abc import Iterator

import pytest

from inferstack.client import AsyncClient
from tests.faults.cluster import MODEL, Cluster
from tests.faults.ledger import PATIENT, Ledger

HOUR = 3600.0
SHIFTS = {"api": HOUR, "recorder": -HOUR, "replica-1": -HOUR, "replica-2": HOUR}


@pytest.fixture(scope="module")
def cluster(direction: int) -> Iterator[Cluster]:
    shifts = {name: seconds * direction for name, seconds in SHIFTS.items()}
    with Cluster(shifts=shifts) as running:
        yield running


@pytest.mark.timeout(90)
async def test_clocks_that_jump_expire_nothing_and_run_nothing_twice(cluster: Cluster) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        before = [await ledger.submit(client, sleep_ms=100) for _ in range(40)]
        for process in cluster.processes:
            process.signal(signal.SIGUSR1)
            ledger.tally.faults += 1
        await ledger.load(cluster.url, tasks=100, sleep_ms=5, seed=1)
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
        assert not ledger.refused
        assert {ledger.seen[str(task_id)].attempts for task_id in before} == {1}
