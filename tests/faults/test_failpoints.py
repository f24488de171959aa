"""kill -9 at every named failpoint, under load, and of others while a process is at one."""

import asyncio
import itertools
import os
import random
import signal

import pytest

from inferstack.failpoint import NAMES
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.ledger import Ledger
from tests.faults.process import Process
from tests.services import PostgresServer, RedisServer

LOAD = 150
VICTIMS = ("replica", "api", "redis", "recorder", "postgres")
PASSES = {"enqueue": "api", "archive": "recorder"}
"""Of what there is one of, that is who passes a failpoint; the others are passed by replicas."""
MEETINGS = [
    (failpoint, victim, then)
    for failpoint, victim, then in itertools.product(
        sorted(NAMES), VICTIMS, (signal.SIGCONT, signal.SIGKILL)
    )
    if PASSES.get(failpoint.partition("-")[2]) != victim
]
"""Who dies while a process is at a failpoint, and whether that one then goes on or dies as well."""


def passes(rng: random.Random, failpoint: str) -> int:
    """At which pass it fires. The recorder lingers between its batches: of it, there are fewer."""
    return rng.randint(1, 2 if "archive" in failpoint else 6)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("failpoint", sorted(NAMES))
async def test_a_process_killed_at_a_failpoint_loses_nothing(
    cluster: Cluster, failpoint: str, seed: int
) -> None:
    rng = random.Random(f"{seed} {failpoint}")
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept():
        starts = sum(process.starts for process in cluster.processes)
        cluster.arm(failpoint, passes(rng, failpoint))
        await ledger.load(cluster.url, tasks=LOAD, sleep_ms=5, seed=rng.randrange(1000))
        await cluster.fired()
        ledger.tally.faults += 1
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
        await cluster.ready()
        assert sum(process.starts for process in cluster.processes) == starts + 1
    assert not ledger.refused
    assert len(ledger.accepted) == LOAD


@pytest.mark.timeout(180)
async def test_a_process_killed_while_another_is_at_a_failpoint_loses_nothing(
    cluster: Cluster, meeting: int, seed: int
) -> None:
    """The other one stands still there until the victim has been started again."""
    meetings = list(MEETINGS)
    random.Random(f"{seed} meetings").shuffle(meetings)
    failpoint, victim, then = meetings[meeting]
    rng, ledger = random.Random(f"{seed} {meeting}"), Ledger(MODEL, cluster.objects)
    async with cluster.kept():
        cluster.arm(failpoint, passes(rng, failpoint), "stop")
        load = asyncio.create_task(
            ledger.load(cluster.url, tasks=LOAD, sleep_ms=5, seed=rng.randrange(1000))
        )
        other = await cluster.stopped()
        dies = called(cluster, victim, other)
        pid = dies.pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: _again(dies, pid))
        other.signal(then)
        ledger.tally.faults += 2
        await load
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
        await cluster.ready()
    assert not ledger.refused
    assert len(ledger.accepted) == LOAD


def called(cluster: Cluster, name: str, other: Process) -> Process | RedisServer | PostgresServer:
    """A victim by its name, which is not the other one."""
    if name in ("redis", "postgres"):
        return cluster.redis if name == "redis" else cluster.postgres
    return next(
        process
        for process in cluster.processes
        if process.name.startswith(name) and process is not other
    )


async def _again(dies: Process | RedisServer | PostgresServer, pid: int) -> bool:
    return dies.pid != pid
