import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from inferstack.config import Settings, as_environment, load
from inferstack.deployment import Deployment, DeploymentState
from inferstack.queue.registry import Registry
from inferstack.recorder import liveness, recorder
from inferstack.recorder.process import RecorderProcess
from inferstack.storage.database import Database
from inferstack.storage.migrations import migrate
from inferstack.storage.models import Models
from inferstack.telemetry import peers, pulse
from tests.recorder.work import Work
from tests.services import PostgresServer, free_port

Start = Callable[..., subprocess.Popen[bytes]]
COMMAND = [sys.executable, "-m", "inferstack.recorder"]
DEPLOYMENT = Deployment(model="echo", version=1, state=DeploymentState.READY)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "recorder.log"


@pytest.fixture
def start(settings: Settings, tmp_path: Path, log: Path) -> Iterator[Start]:
    """Starts recorder processes, and ends those that a test left."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(database_url: str | None = settings.database_url) -> subprocess.Popen[bytes]:
        own = load(
            database_url=database_url, redis_url=settings.redis_url, inferstack_home=tmp_path
        )
        with log.open("ab") as stderr:
            running.append(
                subprocess.Popen(COMMAND, env=as_environment(own), cwd=ROOT, stderr=stderr)
            )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()
    peers.sweep(tmp_path)


async def ended(process: subprocess.Popen[bytes], how: signal.Signals) -> int:
    process.send_signal(how)
    return await asyncio.to_thread(process.wait, timeout=20)


async def rows(url: str | None, expected: int, state: str = "completed") -> int:
    """Waits until so many tasks are archived in a state; returns how many are."""
    assert url is not None
    count = -1
    async with asyncio.timeout(40):
        while count < expected:
            await asyncio.sleep(0.05)
            async with await psycopg.AsyncConnection.connect(url) as connection:
                found = await connection.execute(
                    "SELECT count(*) FROM tasks WHERE state = %s", (state,)
                )
                count = (await found.fetchone() or (0,))[0]
    return count


async def known(work: Work) -> None:
    await Registry(work.redis).put(DEPLOYMENT)


async def test_the_process_archives_and_ends_in_order(
    work: Work, settings: Settings, start: Start, log: Path
) -> None:
    await known(work)
    process = start()
    await work.submit(300)
    await work.finish()
    assert await rows(settings.database_url, 300) == 300
    assert await ended(process, signal.SIGTERM) == 0, log.read_text()
    assert await work.left() == 0
    assert '"message":"stopped"' in log.read_text()


async def test_a_process_killed_under_load_loses_nothing(
    work: Work, settings: Settings, start: Start
) -> None:
    await known(work)
    for _ in range(3):
        process = start()
        await work.submit(1000)
        await work.finish()
        while await work.left() > 20:
            await asyncio.sleep(0.001)
        await ended(process, signal.SIGKILL)
        await work.submit(100)
        await work.finish()
    start()
    assert await rows(settings.database_url, 3300) == 3300


async def test_what_a_removed_deployment_left_is_archived(
    work: Work, settings: Settings, start: Start
) -> None:
    await known(work)
    process = start()
    await work.submit(1)
    assert await rows(settings.database_url, 1, "queued") == 1
    assert await ended(process, signal.SIGTERM) == 0
    await work.finish()
    await Registry(work.redis).remove("echo:1")
    start()
    assert await rows(settings.database_url, 1) == 1


async def test_deadlines_pass_without_any_replica(
    work: Work, settings: Settings, start: Start
) -> None:
    await known(work)
    start()
    await work.submit(2, timeout=0.05)
    assert await rows(settings.database_url, 2, "expired") == 2


async def test_a_deployment_that_is_gone_is_ticked_while_it_has_tasks(
    work: Work, settings: Settings
) -> None:
    gone = [Deployment(model="echo", version=n, state=DeploymentState.READY) for n in (1, 2)]
    registry = Registry(work.redis)
    process = RecorderProcess(settings)
    for deployment in gone:
        await registry.put(deployment)
    await process._refresh()
    for deployment in gone:
        await registry.remove(deployment.name)
    await process._refresh()
    await work.submit(1)

    async def ticked() -> set[str]:
        keys = [key async for key in work.redis.scan_iter("is:{*}:meta")]
        return {key.decode() for key in keys if await work.redis.hexists(key, "ticked")}

    await process._tick()
    assert await ticked() == set()
    await process._look_at_gone()
    await process._tick()
    assert await ticked() == {"is:{echo:1}:meta"}
    await process._redis.aclose()
    await process._database.close()


async def test_deployments_become_rows(work: Work, settings: Settings, start: Start) -> None:
    await known(work)
    start()
    database = Database.from_settings(settings)
    async with asyncio.timeout(20):
        while not (found := await Models(database).all()):
            await asyncio.sleep(0.02)
    await database.close()
    assert found == [DEPLOYMENT]


async def test_a_database_killed_and_started_again_gets_everything(
    work: Work, start: Start
) -> None:
    with PostgresServer() as server:
        migrate(server.url)
        await known(work)
        process = start(server.url)
        await work.submit(100)
        assert await rows(server.url, 100, "queued") == 100
        server.kill()
        await work.finish()
        await work.submit(100)
        server.start()
        assert await rows(server.url, 100, "completed") == 100
        assert await rows(server.url, 100, "queued") == 100
        assert process.poll() is None


async def test_a_database_that_stands_still_ends_the_process(
    work: Work,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its kernel still answers, so a statement that was sent would never come back."""
    monkeypatch.setattr(liveness, "STILL", 1.0)
    monkeypatch.setattr(pulse, "PERIOD", 0.05)
    await known(work)
    codes: list[int] = []
    own = settings.model_copy(update={"inferstack_home": tmp_path})
    process = RecorderProcess(own, liveness.Liveness(codes.append))
    running = asyncio.create_task(process.run())
    assert settings.database_url is not None
    (before,) = await work.submit(1)
    assert await rows(settings.database_url, 1, "queued") == 1
    async with await psycopg.AsyncConnection.connect(settings.database_url) as still:
        await still.execute("SELECT 1 FROM tasks WHERE id = %s FOR UPDATE", (before,))
        assert await work.finish() == [before]
        async with asyncio.timeout(20):
            while not codes:
                await asyncio.sleep(0.05)
    assert codes[0] == pulse.EXIT_STUCK
    assert "1 s: archive; the process ends" in caplog.text
    process.stop()
    await asyncio.wait_for(running, 20)


async def test_a_database_that_is_away_ends_no_process(
    work: Work, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "STILL", 1.0)
    monkeypatch.setattr(pulse, "PERIOD", 0.05)
    monkeypatch.setattr(recorder, "full_jitter", lambda *_, **__: 0.0)
    await known(work)
    codes: list[int] = []
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/none"
    own = settings.model_copy(update={"inferstack_home": tmp_path, "database_url": away})
    process = RecorderProcess(own, liveness.Liveness(codes.append))
    running = asyncio.create_task(process.run())
    await work.submit(1)
    await asyncio.sleep(2.5)
    process.stop()
    await asyncio.wait_for(running, 20)
    assert codes == []
