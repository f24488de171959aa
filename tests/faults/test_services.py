"""PostgreSQL away, the object store away, Redis without memory: who needs it waits, nobody else."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import httpx
import psutil
import pytest
import redis

from inferstack.client import AsyncClient, Problem, Retries
from tests.faults.cluster import ADMIN_PASSWORD, MODEL, Cluster, until
from tests.faults.ledger import LARGE, PATIENT, Ledger
from tests.services import S3Server

pytestmark = pytest.mark.timeout(150)
ONCE = Retries(attempts=1)


@asynccontextmanager
async def postgres_away(cluster: Cluster, how: str) -> AsyncIterator[None]:
    """Killed, or frozen."""
    if how == "killed":
        cluster.postgres.kill()
        yield
        cluster.postgres.start()
        return
    with frozen(cluster.postgres.pid):
        yield


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server and its processes that take connections and never answer."""
    server = psutil.Process(pid)
    processes = [server, *server.children()]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_inference_goes_on_without_postgresql_until_the_outbox_is_full(
    cluster: Cluster, how: str
) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    login = {"username": "admin", "password": ADMIN_PASSWORD}
    async with cluster.kept(), cluster.http() as http:
        await until(lambda: _logs_in(http, login))
        async with postgres_away(cluster, how):
            ledger.tally.faults += 1
            await ledger.load(cluster.url, tasks=60, sleep_ms=2, seed=1)
            assert not ledger.refused
            async with AsyncClient(cluster.url, retries=ONCE) as client:
                while not ledger.refused:
                    await asyncio.gather(*(ledger.submit(client) for _ in range(20)))
                    assert len(ledger.accepted) < 2 * cluster.settings.max_outbox
            refusal = ledger.refused[0]
            assert isinstance(refusal, Problem)
            assert refusal.status == 503
            assert refusal.retry_after is not None
            async with AsyncClient(cluster.url, retries=PATIENT) as client:
                # What was accepted is done, whatever history does.
                for task_id in ledger.accepted:
                    ledger.see(await client.wait(task_id, timeout=30))
            refused = await http.post("/api/auth/login", json=login)
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert int(refused.headers["retry-after"]) >= 1
        ledger.refused.clear()
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
        await until(lambda: _logs_in(http, login))


async def _logs_in(http: httpx.AsyncClient, login: dict[str, str]) -> bool:
    return (await http.post("/api/auth/login", json=login)).status_code == 200


async def test_without_the_object_store_only_those_wait_that_need_it(cluster: Cluster) -> None:
    away = cluster.objects.with_name("away")

    @contextmanager
    def without() -> Iterator[None]:
        cluster.objects.rename(away)
        cluster.objects.write_text("a file where the folder was")
        try:
            yield
        finally:
            cluster.objects.unlink()
            away.rename(cluster.objects)

    await only_those_wait_that_need_it(cluster, Ledger(MODEL, cluster.objects), without())


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_the_s3_server_only_those_wait_that_need_it(how: str) -> None:
    async def run() -> None:
        ledger = Ledger(MODEL, server.bucket)
        await only_those_wait_that_need_it(cluster, ledger, without())
        print(*(f"--- {p.name}\n{cluster.log(p.name)[-3000:]}" for p in cluster.processes))

    @contextmanager
    def without() -> Iterator[None]:
        if how == "killed":
            server.kill()
            yield
            server.start()
            return
        with frozen(server.pid):
            yield

    with (
        S3Server() as server,
        Cluster(
            s3_endpoint=server.url, s3_access_key=server.access, s3_secret_key=server.secret
        ) as cluster,
    ):
        asyncio.run(run())


async def only_those_wait_that_need_it(
    cluster: Cluster, ledger: Ledger, without: AbstractContextManager[None]
) -> None:
    """Args: without: takes the object store away."""
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        for replica in cluster.replicas:
            # Idle, so they lose nothing by it: what follows runs when the store is gone.
            replica.signal(signal.SIGSTOP)
        waiting = [await ledger.submit(client, payload2="x" * LARGE) for _ in range(3)]
        growing = [await ledger.submit(client, more=LARGE) for _ in range(3)]
        with without:
            ledger.tally.faults += 1
            for replica in cluster.replicas:
                replica.signal(signal.SIGCONT)
            small = [await ledger.submit(client) for _ in range(40)]
            for task_id in small:
                # They end while the store is away: that is the point. The limit only ends a hang.
                ledger.see(await client.wait(str(task_id), timeout=60))
            assert all(ledger.seen[str(task_id)].status == "completed" for task_id in small)
            async with AsyncClient(cluster.url, retries=ONCE) as impatient:
                assert await ledger.submit(impatient, payload2="x" * LARGE) is None
            refusal = ledger.refused.pop()
            assert isinstance(refusal, Problem)
            assert refusal.status == 503
            for task_id in waiting + growing:
                assert not (await client.get(str(task_id))).finished
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)


async def test_redis_without_memory_takes_nothing_new_and_finishes_what_it_has(
    cluster: Cluster,
) -> None:
    ledger = Ledger(MODEL, cluster.objects)
    async with cluster.kept(), AsyncClient(cluster.url, retries=PATIENT) as client:
        ids = [await ledger.submit(client, sleep_ms=50) for _ in range(80)]
        with redis.Redis.from_url(cluster.redis.url) as server:
            server.config_set("maxmemory", "1mb")
            ledger.tally.faults += 1
            try:
                async with AsyncClient(cluster.url, retries=ONCE) as impatient:
                    assert await ledger.submit(impatient) is None
                refusal = ledger.refused.pop()
                assert isinstance(refusal, Problem)
                assert refusal.status == 503
                assert refusal.retry_after is not None
                for task_id in ids:
                    ledger.see(await client.wait(str(task_id), timeout=30))
            finally:
                server.config_set("maxmemory", "0")
        assert await ledger.submit(client) is not None
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
