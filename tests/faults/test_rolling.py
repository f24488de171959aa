"""Processes are replaced one by one, also by another version; nobody who asks notices."""

import asyncio
import io
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from inferstack.api.server import FAREWELL, LAST_WAIT
from inferstack.client import AsyncClient
from inferstack.client.load import Load, run_blocking
from tests.faults.cluster import MODEL, Cluster, until
from tests.faults.crowd import at_least
from tests.faults.ledger import Ledger
from tests.faults.process import ROOT, Process
from tests.faults.tally import NOTES

CLIENTS = 12
PAUSE = 0.25
"""Seconds between two requests of a client: enough for a connection to be idle now and then."""
CROWD, RATE = 64, 600.0
"""Connections, and requests a second."""
SETTLE = 1.0
"""Seconds of load on each mixture of versions."""


@pytest.fixture(scope="module")
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program as it was at another commit."""
    folder = tmp_path_factory.mktemp("old")
    commit = request.config.option.old
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "inferstack"]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        reason = archive.stderr.decode().strip().splitlines()[-1]
        NOTES.append(f"rolling restart WITHOUT another version: git has no {commit} here: {reason}")
        shutil.copytree(ROOT / "inferstack", folder / "inferstack")
    else:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(apis=2) as running:
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))


@asynccontextmanager
async def load(cluster: Cluster, ledger: Ledger, failures: list[str]) -> AsyncIterator[None]:
    """Clients with one kept connection each; half of them wait for the result."""
    over = asyncio.Event()

    async def work(waits: bool) -> None:
        async with cluster.http() as http:
            while not over.is_set():
                await asyncio.sleep(PAUSE)
                await submit(http, ledger, failures, waits)

    workers = [asyncio.create_task(work(number % 2 == 0)) for number in range(CLIENTS)]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*workers)


async def submit(http: httpx.AsyncClient, ledger: Ledger, failures: list[str], waits: bool) -> None:
    data = ledger.intend(sleep_ms=5)
    body = {"data": data, "model": MODEL, "timeout": 600}
    headers = {"Prefer": "wait=10"} if waits else {}
    try:
        answer = await http.post("/api/inference", json=body, headers=headers)
    except httpx.HTTPError as error:
        failures.append(repr(error))
        return
    if answer.status_code in (200, 202):
        ledger.hear(data["payload"], answer.status_code, answer.content)
    else:
        failures.append(f"{answer.status_code} {answer.text}")


@asynccontextmanager
async def crowded(
    cluster: Cluster, ledger: Ledger, elsewhere: Executor, failures: list[str]
) -> AsyncIterator[None]:
    """Many who read a task, so that some request or connection is on its way at any moment."""
    async with AsyncClient(cluster.url) as client:
        task_id = await ledger.submit(client)
    url = f"{cluster.url}/api/inference/{task_id}"
    crowd = Load(url=url, connections=CROWD, rate=RATE, duration=FAREWELL + 4.0)
    sending = asyncio.get_running_loop().run_in_executor(elsewhere, run_blocking, crowd)
    try:
        await at_least(cluster, "inferstack_http_connections{", CROWD)
        yield
    finally:
        report = await sending
    if set(report.statuses) != {200} or report.errors:
        failures.append(f"{report.statuses} {report.errors}")


def says_farewell(old: Path) -> bool:
    """Whether the old version drains without a failed request (decision 0021), or says so."""
    if "FAREWELL" in (old / "inferstack/api/server.py").read_text():
        return True
    NOTES.append("rolling restart: NO UPGRADE: the old version cuts connections when it ends")
    return False


async def upgrade(
    cluster: Cluster, old: Path, ledger: Ledger, elsewhere: Executor, failures: list[str]
) -> int:
    """Replaces every process that runs the old code; returns how many."""
    outdated = [process for process in cluster.processes if process.root == old]
    for process in outdated:
        async with AsyncExitStack() as stack:
            if process in cluster.apis:
                await stack.enter_async_context(crowded(cluster, ledger, elsewhere, failures))
            await replace(cluster, process, ROOT)
    return len(outdated)


async def replace(cluster: Cluster, process: Process, root: Path) -> float:
    """Ends a process as an orchestrator does, and has it started again with code from `root`.

    Returns:
        Seconds that it took to end.
    """
    process.root = root
    starts = process.starts
    # Another one may have answered for one that is on its way.
    await until(lambda: _served(cluster, process, starts))
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    await until(lambda: _started(process, starts + 1))
    took = time.monotonic() - began
    await until(lambda: _served(cluster, process, starts + 1))
    await cluster.ready()
    assert Path(f"/proc/{process.pid}/cwd").samefile(root)
    await asyncio.sleep(SETTLE)
    return took


async def _started(process: Process, starts: int) -> bool:
    return process.starts >= starts


async def _served(cluster: Cluster, process: Process, starts: int) -> bool:
    """Whether the process was started so often and got as far each time."""
    ready = "listening on" if process in cluster.apis else "serving "
    if process is cluster.recorder:
        ready = "recording"
    return cluster.log(process.name).count(ready) >= starts


@pytest.mark.timeout(180)
async def test_a_rolling_restart_with_two_versions_fails_no_request(
    cluster: Cluster, old: Path, elsewhere: Executor
) -> None:
    """Half of the processes come back with the old code, work beside the new ones, and are replaced
    by new ones as in an upgrade."""
    ledger, failures = Ledger(MODEL, cluster.objects), list[str]()
    took: dict[str, float] = {}
    async with cluster.kept():
        async with load(cluster, ledger, failures):
            for process, root in zip(cluster.apis, (old, ROOT), strict=True):
                async with crowded(cluster, ledger, elsewhere, failures):
                    took[process.name] = await replace(cluster, process, root)
            for process, root in zip(cluster.replicas, (old, ROOT), strict=True):
                took[process.name] = await replace(cluster, process, root)
            took["recorder"] = await replace(cluster, cluster.recorder, old)
            ledger.tally.faults += len(took)
            if says_farewell(old):
                ledger.tally.faults += await upgrade(cluster, old, ledger, elsewhere, failures)
        await ledger.check(cluster.url, cluster.redis.url, cluster.postgres.url)
    NOTES.append("told to end: " + ", ".join(f"{name} {took[name]:.1f} s" for name in sorted(took)))
    assert not failures, failures[:5]
    assert len(ledger.accepted) == len(ledger.submitted)
    assert {row.attempts for row in ledger.rows.values()} == {1}
    replaced = [process for process in cluster.processes if process.ends]
    assert len(replaced) == len(cluster.processes)
    assert {end for process in replaced for end in process.ends} == {0}
    assert all(FAREWELL < took[process.name] < FAREWELL + LAST_WAIT for process in cluster.apis)
    assert max(took[process.name] for process in cluster.replicas) < 3
