"""Clocks jump while work is under way, each on its own, first one way and then the other."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from inferstack.client import AsyncClient
from inferstack.queue.connection import clock_ms, connect
from inferstack.storage.database import Database
from inferstack.storage.history import History
from tests.faults.clocks import LIBRARY, Clock
from tests.faults.cluster import MODEL, Cluster
from tests.faults.ledger import PATIENT, Ledger
from tests.faults.process import Process
from tests.services import PostgresServer, RedisServer
from tests.storage.samples import queued

HOUR = 3600.0
OF_REDIS = 240.0
"""From there to the other side is less than the timeouts of a ledger: a task expires earlier by as
much as the clock of Redis jumps ahead."""
UNDER_WAY, LOAD = 10, 40


class Clocks:
    """Those of all processes of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        """The cluster must not have been started."""
        self._cluster = cluster
        self._clocks: dict[str, Clock] = {}
        self._off: dict[str, float] = {}
        for runs in self._running():
            clock = Clock(cluster.folder / f"{runs.name}.clock")
            runs.env = clock.environment
            self._clocks[runs.name] = clock

    def _running(self) -> list[Process | RedisServer | PostgresServer]:
        return [*self._cluster.processes, self._cluster.redis, self._cluster.postgres]

    def jump(self, rng: random.Random) -> None:
        """Each to a side of its own; those that have jumped before, to their other side."""
        for name, clock in self._clocks.items():
            far = OF_REDIS if name == "redis" else HOUR
            self._off[name] = -self._off.get(name, rng.choice((far, -far)))
            clock.jump(self._off[name])

    async def check(self, client: AsyncClient) -> None:
        """All have the library, and those that tell the time tell the wrong one."""
        cluster = self._cluster
        for runs in self._running():
            assert LIBRARY in Path(f"/proc/{runs.pid}/maps").read_text(), runs.name
        async with connect(cluster.redis.url) as redis:
            shown = {"redis": await clock_ms(redis) / 1000 - time.time()}
        with psycopg.connect(cluster.postgres.url) as connection:
            row = connection.execute("SELECT extract(epoch FROM now())::float").fetchone()
            shown["postgres"] = row[0] - time.time() if row else 0.0
        async with cluster.http() as http:
            # Seconds since the API started, when its clock was right.
            shown["api"] = (await http.get("/health/live")).json()["uptime"]
        assert shown == {name: pytest.approx(self._off[name], abs=120.0) for name in shown}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Cluster, Clocks]]:
    made = Cluster(background=True)
    clocks = Clocks(made)
    with made:
        yield made, clocks
        print(*(f"--- {p.name}\n{made.log(p.name)[-3000:]}" for p in made.processes))


@pytest.mark.timeout(120)
async def test_clocks_that_jump_expire_nothing_and_run_nothing_twice(
    cluster: tuple[Cluster, Clocks], seed: int
) -> None:
    running, clocks = cluster
    ledger = Ledger(MODEL, running.objects, began=0.0, steady=False)
    ran, rng = running.folder / "ran", random.Random(seed)
    async with running.kept(), AsyncClient(running.url, retries=PATIENT) as client:
        for _ in range(2):
            # Some run and some wait when the clocks jump, with a lease of two seconds.
            for _ in range(UNDER_WAY):
                await ledger.submit(client, sleep_ms=1000, noted_in=str(ran))
            clocks.jump(rng)
            ledger.tally.faults += len(running.processes) + 2
            await ledger.load(running.url, tasks=LOAD, sleep_ms=5, seed=seed)
            await clocks.check(client)
        await ledger.check(running.url, running.redis.url, running.postgres.url)
        await celery_finds_what_is_lost(running, client)
    assert not ledger.refused
    assert {row.attempts for row in ledger.rows.values()} == {1}
    lines = ran.read_text().split()
    assert len(lines) == len(set(lines)) == 2 * UNDER_WAY
    assert {process.name: process.starts for process in running.processes} == dict.fromkeys(
        (process.name for process in running.processes), 1
    )


async def celery_finds_what_is_lost(running: Cluster, client: AsyncClient) -> None:
    """It still works: a task that only history knows is queued again, and ends."""
    lost = queued(MODEL, tenant="local", data={"payload": "lost"}, timeout=None)
    database = Database(running.postgres.url)
    await History(database).upsert([lost])
    await database.close()
    found = await client.wait(lost.spec.task_id, timeout=30)
    assert found.status == "completed"
