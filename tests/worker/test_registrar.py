"""What the registry says of deployments, on a real Redis without any replica process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState, ReplicaStatus
from inferstack.engines.repository import find, scan
from inferstack.queue.connection import connect
from inferstack.queue.outbox import Outbox
from inferstack.queue.registry import KEY, Registry
from inferstack.queue.task_queue import TaskQueue
from inferstack.task import TaskState
from inferstack.worker import host
from inferstack.worker.registrar import GONE, Registrar

from .callers import Callers
from .fakes import settings as make_settings

OLD = Deployment(model="old", version=1, state=DeploymentState.READY)


@pytest.fixture
def settings(tmp_path: Path, clean_redis_url: str) -> Settings:
    folder = tmp_path / "models" / "new" / "1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("engine: python\nreplicas: 1\n")
    base = make_settings(model_path=tmp_path / "models")
    return base.model_copy(update={"redis_url": clean_redis_url})


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = connect(str(settings.redis_url))
    await Registry(client).put(OLD)
    yield client
    await client.aclose()


@pytest.fixture
def registrar(redis: Redis, settings: Settings) -> Registrar:
    return Registrar(redis, scan(settings.model_path, settings), settings)


async def names(redis: Redis) -> list[str]:
    return [deployment.name for deployment in await Registry(redis).all()]


async def row(redis: Redis, name: str) -> Deployment:
    return next(d for d in await Registry(redis).all() if d.name == name)


@pytest.fixture
def notice_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferstack.worker.registrar.NOTICE", 0.0)


async def archive(redis: Redis, settings: Settings) -> None:
    """Does what the recorder does once history has all."""
    outbox = Outbox(redis, [OLD.name], settings)
    await outbox.archived(OLD.name, await outbox.read(100), [])


async def test_a_deployment_without_folder_and_tasks_is_failed_and_then_removed(
    registrar: Registrar, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await registrar.refresh()
        old = await row(redis, OLD.name)
        assert (old.state, old.reason) == (DeploymentState.FAILED, GONE)
    monkeypatch.setattr("inferstack.worker.registrar.NOTICE", 0.0)
    await registrar.refresh()
    assert await names(redis) == ["new:1"]


@pytest.mark.usefixtures("notice_is_over")
async def test_a_deployment_without_folder_stays_until_history_has_its_tasks(
    registrar: Registrar, redis: Redis, settings: Settings
) -> None:
    queue = TaskQueue(redis, OLD.name, settings)
    await queue.cancel(await Callers(redis, settings, OLD.name).submit({}))
    for _ in range(3):
        await registrar.refresh()
        assert OLD.name in await names(redis)
    await archive(redis, settings)
    await registrar.refresh()
    assert await names(redis) == ["new:1"]


async def test_looking_goes_on_after_any_error(
    registrar: Registrar,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("inferstack.worker.registrar.PERIOD", 0.01)
    await redis.hset(KEY, "newer:1", b'{"model": "newer", "version": 1, "state": "resting"}')
    running = asyncio.create_task(registrar.run())
    async with asyncio.timeout(10):
        while "cannot refresh the registry" not in caplog.text:
            await asyncio.sleep(0.01)
        await redis.hdel(KEY, "newer:1")
        while "new:1" not in await names(redis):
            await asyncio.sleep(0.01)
    assert not running.done()
    await end(running)


@pytest.mark.usefixtures("notice_is_over")
async def test_a_deployment_without_folder_stays_as_failed_until_its_tasks_are_finished(
    registrar: Registrar, redis: Redis, settings: Settings
) -> None:
    task_id = await Callers(redis, settings, OLD.name).submit({})
    for _ in range(2):
        await registrar.refresh()
        old = await row(redis, OLD.name)
        assert (old.state, old.reason) == (DeploymentState.FAILED, GONE)
    queue = TaskQueue(redis, OLD.name, settings)
    (claim,) = await queue.claim("w", 1)
    await registrar.refresh()
    assert (await row(redis, OLD.name)).reason == GONE
    await queue.release("w", [(claim.task_id, claim.attempt)])
    assert await queue.cancel(task_id) is TaskState.CANCELLED
    await archive(redis, settings)
    await registrar.refresh()
    assert await names(redis) == ["new:1"]


async def test_a_deployment_of_another_machine_is_left_to_it(
    registrar: Registrar, redis: Redis, settings: Settings
) -> None:
    await Callers(redis, settings, OLD.name).submit({})
    await registrar.refresh()
    await Registry(redis).put(OLD)
    await registrar.refresh()
    assert await row(redis, OLD.name) == OLD


async def test_that_another_machine_lacks_a_folder_does_not_fail_a_deployment(
    registrar: Registrar, redis: Redis
) -> None:
    await registrar.refresh()
    new = await row(redis, "new:1")
    failed = msgspec.structs.replace(new, state=DeploymentState.FAILED, reason=GONE)
    await Registry(redis).put(failed)
    await registrar.refresh()
    assert await row(redis, "new:1") == new


async def test_one_replica_that_cannot_load_does_not_fail_a_model_that_others_serve(
    registrar: Registrar, redis: Redis, settings: Settings
) -> None:
    entry = find(scan(settings.model_path, settings), "new", 1)
    queue = TaskQueue(redis, entry.name, settings)
    await queue.heartbeat(ReplicaStatus(worker="host:1:a"))
    await registrar.refresh()
    await host.report_failure(entry, settings, "no weights")
    assert (await row(redis, entry.name)).state is DeploymentState.READY
    await queue.leave("host:1:a")
    await host.report_failure(entry, settings, "no weights")
    failed = await row(redis, entry.name)
    assert (failed.state, failed.reason) == (DeploymentState.FAILED, "no weights")


async def test_a_folder_that_is_broken_here_does_not_fail_a_model_that_others_serve(
    redis: Redis, settings: Settings
) -> None:
    there = Registrar(redis, scan(settings.model_path, settings), settings)
    (settings.model_path / "new" / "1" / "config.yaml").write_text("engine: [")
    here = Registrar(redis, scan(settings.model_path, settings), settings)
    await here.refresh()
    assert (await row(redis, "new:1")).state is DeploymentState.FAILED
    queue = TaskQueue(redis, "new:1", settings)
    await queue.heartbeat(ReplicaStatus(worker="there:1:a"))
    await there.refresh()
    served = await row(redis, "new:1")
    assert served.state is DeploymentState.READY
    await here.refresh()
    assert await row(redis, "new:1") == served
    await queue.leave("there:1:a")
    await here.refresh()
    assert (await row(redis, "new:1")).state is DeploymentState.FAILED


async def test_machines_with_different_settings_do_not_take_turns(
    redis: Redis, settings: Settings
) -> None:
    new, old = (
        Registrar(redis, scan(settings.model_path, each), each)
        for each in (settings.model_copy(update={"batch_size": 7}), settings)
    )
    await TaskQueue(redis, "new:1", settings).heartbeat(ReplicaStatus(worker="host:1:a"))
    await old.refresh()
    await new.refresh()
    stands = await row(redis, "new:1")
    assert stands.batch_size == 7
    for registrar in (old, new, old):
        await registrar.refresh()
        assert await row(redis, "new:1") == stands


async def test_a_deployment_whose_replicas_end_early_is_failed_until_one_lives(
    registrar: Registrar, redis: Redis, settings: Settings
) -> None:
    await registrar.refresh()
    assert registrar.starting == {"new:1"}
    registrar.failed("new:1", "no such device")
    await registrar.refresh()
    failed = await row(redis, "new:1")
    assert (failed.state, failed.reason) == (DeploymentState.FAILED, "no such device")
    assert registrar.starting == set()
    queue = TaskQueue(redis, "new:1", settings)
    await queue.heartbeat(ReplicaStatus(worker="host:1:a"))
    await registrar.refresh()
    assert (await row(redis, "new:1")).state is DeploymentState.READY
    await queue.leave("host:1:a")
    await registrar.refresh()
    assert (await row(redis, "new:1")).state is DeploymentState.STARTING


@pytest.mark.parametrize("ends", ["ready", "failed"])
async def test_other_models_wait_until_the_default_one_is_ready_or_has_failed(
    redis: Redis, settings: Settings, ends: str
) -> None:
    settings = settings.model_copy(update={"default_model": "new"})
    registrar = Registrar(redis, scan(settings.model_path, settings), settings)
    await registrar.refresh()
    waiting = asyncio.create_task(registrar.default_settled())
    await asyncio.sleep(0)
    assert not waiting.done()
    if ends == "ready":
        await TaskQueue(redis, "new:1", settings).heartbeat(ReplicaStatus(worker="host:1:a"))
    else:
        registrar.failed("new:1", "no such device")
    await registrar.refresh()
    await asyncio.wait_for(waiting, 5)


async def test_other_models_do_not_wait_for_a_default_one_that_is_not_there(
    registrar: Registrar,
) -> None:
    await registrar.refresh()
    settled, _ = await asyncio.wait({asyncio.create_task(registrar.default_settled())}, timeout=5)
    assert settled


@pytest.mark.parametrize(
    ("replicas", "level"),
    [("2", "WARNING"), ("{min: 2, max: 3}", "WARNING"), ("{min: 1, max: 3}", "INFO")],
)
async def test_the_loss_of_a_replica_is_logged_once(
    redis: Redis, settings: Settings, caplog: pytest.LogCaptureFixture, replicas: str, level: str
) -> None:
    """As a warning, unless it may be one that the queue needed no more."""
    caplog.set_level("INFO")
    config = settings.model_path / "new" / "1" / "config.yaml"
    config.write_text(f"engine: python\nreplicas: {replicas}\n")
    registrar = Registrar(redis, scan(settings.model_path, settings), settings, tells_losses=True)
    queue = TaskQueue(redis, "new:1", settings)
    for worker in ("host:1:a", "host:2:b"):
        await queue.heartbeat(ReplicaStatus(worker=worker))
    await registrar.refresh()
    await queue.leave("host:1:a")
    for _ in range(2):
        await registrar.refresh()
    lost = [(each.levelname, each.message) for each in caplog.records if "gone," in each.message]
    assert lost == [(level, "replica host:1:a of new:1 is gone, 1 left")]
