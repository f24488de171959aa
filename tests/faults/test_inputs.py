"""Replicas that freeze, engines that hang, inputs that raise or kill: only the guilty fail."""

import json
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from inferstack.client import AsyncClient
from inferstack.lifecycle.payloads import input_key
from inferstack.task import TaskState
from tests.faults.audit import Row
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import PATIENT, Ledger
from tests.faults.process import Process

pytestmark = pytest.mark.timeout(120)


async def checked(cluster: Cluster, ledger: Ledger) -> None:
    await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    assert not ledger.refused


@pytest.mark.parametrize("failpoint", ["after-claim", "before-complete"])
async def test_a_replica_that_wakes_after_its_lease_is_refused(
    cluster: Cluster, failpoint: str
) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        before = await refused_as_stale(cluster)
        cluster.arm(failpoint, action="stop")
        ids = [await ledger.submit(client, more=size) for size in (0, 9000, 0, 0)]
        frozen = await cluster.stopped()
        ledger.tally.faults += 1
        for task_id in ids:
            # The other replica takes over: nobody waits for the frozen one.
            ledger.see(await client.wait(str(task_id), timeout=30))
        frozen.signal(signal.SIGCONT)
        if failpoint == "before-complete":
            await until(lambda: _more(cluster, before))
        await checked(cluster, ledger)


async def test_a_replica_that_wakes_while_another_holds_its_task_is_refused(
    cluster: Cluster,
) -> None:
    """The other one stands still behind its claim, so that what comes too late comes first."""
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        before = await refused_as_stale(cluster)
        cluster.arm("before-complete", action="stop")
        task_id = str(await ledger.submit(client, more=9000))
        frozen = await cluster.stopped()
        (other,) = (process for process in cluster.replicas if process is not frozen)
        cluster.arm("after-claim", action="stop")
        await until(lambda: _stopped(other))
        ledger.tally.faults += 2
        frozen.signal(signal.SIGCONT)
        folder = (cluster.objects / input_key(task_id)).parent
        (late,) = folder.glob("result-*")
        await until(lambda: _removed_or_taken(late, client, task_id))
        other.signal(signal.SIGCONT)
        await checked(cluster, ledger)
        assert not late.exists()
        await until(lambda: _more(cluster, before))


async def _stopped(process: Process) -> bool:
    return process.stopped


async def _removed_or_taken(result: Path, client: AsyncClient, task_id: str) -> bool:
    """Whether a result that came too late was refused, or it was not: then the audit finds it."""
    return not result.exists() or (await client.get(task_id)).finished


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
        guilty = str(await ledger.submit(client, do="hang", once=str(once)))
        ledger.tally.faults += 1
        await ledger.load(cluster.url, tasks=60, sleep_ms=2, seed=1)
        await checked(cluster, ledger)
        assert sum(process.starts for process in cluster.replicas) == starts + 1
        assert ledger.rows[guilty].attempts == 2
        await cluster.ready()


async def test_an_input_that_raises_fails_alone_and_its_mates_complete_at_once(
    cluster: Cluster,
) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        poison = await poisoned(cluster, ledger, client, "raise", "engine-error")
        assert poison.row.attempts == cluster.settings.max_attempts
        assert {row.attempts for row in poison.others} == {1}
        # All of them, in the one call of the model from which the poison was picked out.
        assert {mate.batch_size for mate in poison.mates} == {len(poison.calls[0])}
        assert len({mate.compute_ms for mate in poison.mates}) == 1


@pytest.mark.parametrize("how", ["exit", "segfault", "kill", "cuda", "backtrack"])
async def test_an_input_that_kills_its_replica_fails_alone(cluster: Cluster, how: str) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        starts = sum(process.starts for process in cluster.replicas)
        poison = await poisoned(cluster, ledger, client, how, "replica-crashed")
        assert poison.row.attempts == poison.row.crashes == cluster.settings.max_crashes
        assert len(poison.calls) == cluster.settings.max_crashes
        # Whoever was in the batch went down with it once; then each suspect ran alone.
        assert {(mate.attempts, mate.crashes, mate.batch_size) for mate in poison.mates} == {
            (2, 1, 1)
        }
        assert {(row.attempts, row.crashes) for row in poison.others} <= {(1, 0), (2, 1)}
        # One that holds the interpreter ends later than its leases.
        await until(lambda: _started(cluster, starts + cluster.settings.max_crashes))
        await cluster.ready()


async def _started(cluster: Cluster, times: int) -> bool:
    return sum(process.starts for process in cluster.replicas) == times


class Poison(NamedTuple):
    """What became of a poisonous input, and of those beside it."""

    row: Row
    mates: list[Row]
    """Whoever was in the batch of its first attempt."""
    others: list[Row]
    """All but itself."""
    calls: list[list[str]]
    """The payloads of each call of the model that it was in."""


async def poisoned(
    cluster: Cluster, ledger: Ledger, client: AsyncClient, how: str, error: str
) -> Poison:
    """Submits one among others, waits for the end of all, and reads its dead letter.

    One request without a key is one commit, so whoever claims takes the first of them together.
    """
    witness = cluster.folder / f"witness-{how}"
    inputs = [ledger.intend() for _ in range(10)]
    guilty = ledger.intend(TaskState.FAILED, do=how, witness=str(witness))
    inputs.insert(1, guilty)
    async with cluster.http() as http:
        bodies = [{"data": data, "model": MODEL, "timeout": 600} for data in inputs]
        answers = (await http.post("/api/inference/batch", json=bodies)).json()
    for data, answer in zip(inputs, answers, strict=True):
        ledger.accept(answer["task_id"], data["payload"])
    ledger.tally.faults += 1
    await checked(cluster, ledger)
    rows = {ledger.accepted[task_id]: row for task_id, row in ledger.rows.items()}
    found = Poison(
        row := rows.pop(guilty["payload"]),
        [],
        list(rows.values()),
        [json.loads(line) for line in witness.read_text().splitlines()],
    )
    found.mates.extend(rows[payload] for payload in found.calls[0] if payload in rows)
    assert found.mates, "it was alone from the start"
    assert found.calls[-1] == [guilty["payload"]], "it was not found out alone"
    letter = await client.dead_letter(row.task_id)
    assert letter.error is not None
    assert (letter.error.type, letter.input) == (error, guilty)
    assert (letter.attempts, letter.crashes) == (row.attempts, row.crashes)
    return found
