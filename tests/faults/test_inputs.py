"""Replicas that freeze, engines that hang, inputs that raise or kill: only the guilty fail."""

import asyncio
import signal
from pathlib import Path

import pytest

from inferstack.client import AsyncClient
from inferstack.task import Priority, TaskState
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import PATIENT, Ledger
from tests.faults.process import Process

pytestmark = pytest.mark.timeout(120)


async def checked(cluster: Cluster, ledger: Ledger) -> None:
    await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    assert not ledger.refused


def attempts(ledger: Ledger, task_id: str | None) -> int:
    return ledger.seen[str(task_id)].attempts


async def stopped(cluster: Cluster) -> Process:
    """The replica that a failpoint has stopped."""
    await cluster.fired()
    found: list[Process] = []

    async def look() -> bool:
        found[:] = [
            process
            for process in cluster.replicas
            if Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        ]
        return bool(found)

    await until(look)
    return found[0]


@pytest.mark.parametrize("failpoint", ["after-claim", "before-complete"])
async def test_a_replica_that_wakes_after_its_lease_is_refused(
    cluster: Cluster, failpoint: str
) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        before = await refused_as_stale(cluster)
        cluster.arm(failpoint, action="stop")
        ids = [await ledger.submit(client, more=size) for size in (0, 9000, 0, 0)]
        frozen = await stopped(cluster)
        ledger.tally.faults += 1
        for task_id in ids:
            # The other replica takes over: nobody waits for the frozen one.
            ledger.see(await client.wait(str(task_id), timeout=30))
        frozen.signal(signal.SIGCONT)
        if failpoint == "before-complete":
            await until(lambda: _more(cluster, before))
        await checked(cluster, ledger)


async def refused_as_stale(cluster: Cluster) -> float:
    """What `/metrics` of the API counts: one scrape shows the replicas too."""
    async with cluster.http() as http:
        text = (await http.get("/metrics")).text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("inferstack_completions_stale_total")
    )


async def _more(cluster: Cluster, before: float) -> bool:
    return await refused_as_stale(cluster) > before


async def test_a_batch_that_hangs_ends_its_replica_and_is_tried_again(cluster: Cluster) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    once = cluster.folder / "once"
    once.touch()
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        starts = sum(process.starts for process in cluster.replicas)
        guilty = await ledger.submit(client, do="hang", once=str(once))
        ledger.tally.faults += 1
        await ledger.load(cluster.url, tasks=60, sleep_ms=2, seed=1)
        await checked(cluster, ledger)
        assert sum(process.starts for process in cluster.replicas) == starts + 1
        assert attempts(ledger, guilty) == 2
        await cluster.ready()


async def test_an_input_that_raises_fails_alone_and_its_mates_complete_at_once(
    cluster: Cluster,
) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        mates, guilty = await _batch(ledger, client, cluster, "raise", TaskState.FAILED)
        await checked(cluster, ledger)
        assert ledger.seen[guilty].attempts == cluster.settings.max_attempts
        assert ledger.seen[guilty].error is not None
        assert {attempts(ledger, mate) for mate in mates} == {1}


@pytest.mark.parametrize("how", ["exit", "segfault", "kill", "cuda", "backtrack"])
async def test_an_input_that_kills_its_replica_fails_alone(cluster: Cluster, how: str) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        starts = sum(process.starts for process in cluster.replicas)
        mates, guilty = await _batch(ledger, client, cluster, how, TaskState.FAILED)
        await checked(cluster, ledger)
        error = ledger.seen[guilty].error
        assert error is not None
        assert error.type == "replica-crashed"
        # Whoever was in the batch went down with it once; then each suspect ran alone.
        assert {attempts(ledger, mate) for mate in mates} <= {1, 2}
        # One that holds the interpreter ends later than its leases.
        await until(lambda: _started(cluster, starts + cluster.settings.max_crashes))
        await cluster.ready()


async def _started(cluster: Cluster, times: int) -> bool:
    return sum(process.starts for process in cluster.replicas) == times


async def _batch(
    ledger: Ledger, client: AsyncClient, cluster: Cluster, how: str, ends: TaskState
) -> tuple[list[str], str]:
    """A poisonous input among mates; a slow task in front of them lets them wait together."""
    for _ in cluster.replicas:
        await ledger.submit(client, Priority.HIGH, sleep_ms=700)
    ids = await asyncio.gather(
        *(ledger.submit(client) for _ in range(5)),
        ledger.submit(client, ends=ends, do=how),
        *(ledger.submit(client) for _ in range(5)),
    )
    ledger.tally.faults += 1
    found = [str(task_id) for task_id in ids]
    guilty = found.pop(5)
    return found, guilty
