import os
import time
from pathlib import Path

import msgspec
import pytest

from inferstack.background import duties
from inferstack.config import Settings, load
from inferstack.errors import ConflictError, NotFoundError
from inferstack.lifecycle import retention
from inferstack.lifecycle.payloads import input_key, result_key
from inferstack.lifecycle.retention import remove_old_tasks, remove_orphans
from inferstack.storage.history import History
from inferstack.storage.migrations import migrate
from inferstack.storage.objects import FOLDER, ObjectStore
from inferstack.task import Task, TaskState
from tests.storage.samples import completed, queued

LONG_AGO = 1_700_000_000.0


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore.from_settings(load(inferstack_home=tmp_path))


def aged(task: Task) -> Task:
    """The task as if it had been submitted and finished long ago."""
    millis = f"{int(LONG_AGO * 1000):012x}"
    old_id = f"{millis[:8]}-{millis[8:]}{task.spec.task_id[13:]}"
    finished = LONG_AGO + 1 if task.state.terminal else None
    return msgspec.structs.replace(
        task,
        spec=msgspec.structs.replace(task.spec, task_id=old_id),
        created_at=LONG_AGO,
        completed_at=finished,
    )


async def test_old_finished_tasks_and_their_objects_go(
    history: History, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    old = [aged(completed(queued(data=None, data_ref=f"in/{n}"))) for n in range(5)]
    young = completed(queued(data=None, data_ref="in/young"))
    unfinished = aged(queued())
    for task in (*old, young):
        assert task.spec.data_ref is not None
        await objects.put(task.spec.data_ref, b"1")
    young = msgspec.structs.replace(young, created_at=4e9, completed_at=4e9)
    await history.upsert([*old, young, unfinished])

    assert await remove_old_tasks(history, objects, days=30.0) == 5

    assert await history.get(old[0].spec.task_id) is None
    with pytest.raises(NotFoundError):
        await objects.get("in/0")
    assert await objects.get("in/young") == b"1"
    assert await history.get(young.spec.task_id) is not None
    kept = await history.get(unfinished.spec.task_id)
    assert kept is not None
    assert kept.state is TaskState.QUEUED
    assert await remove_old_tasks(history, objects, days=30.0) == 0


async def put(objects: ObjectStore, home: Path, key: str, written: float = LONG_AGO) -> None:
    """Stores a body as if that had been then."""
    await objects.put(key, b"1")
    os.utime(home / FOLDER / key, (written, written))


async def test_bodies_that_no_task_refers_to_go_once_they_are_old(
    history: History, objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE", 2)
    unfinished, restored = aged(queued()), aged(queued())
    young = queued().spec.task_id
    never = [aged(queued()).spec.task_id for _ in range(5)]
    orphans = [input_key(task_id) for task_id in never] + [result_key(never[0], 2, "host:1:a", 7)]
    kept = [
        input_key(unfinished.spec.task_id),
        input_key(young),
        "tasks/00000000-what/input.json",
        "other/1",
    ]
    for key in (*orphans, *kept):
        await put(objects, tmp_path, key)
    # Its row comes later, out of the outbox that was restored, too.
    kept.append(input_key(restored.spec.task_id))
    await put(objects, tmp_path, kept[-1], time.time())
    await history.upsert([unfinished])

    assert await remove_orphans(history, objects, days=30.0) == len(orphans)

    assert {key async for key in objects.all_keys()} == set(kept)
    assert await remove_orphans(history, objects, days=30.0) == 0


async def test_bodies_are_no_orphans_before_a_week_past_the_retention(
    history: History, objects: ObjectStore, tmp_path: Path
) -> None:
    days = (time.time() - LONG_AGO) / 86400
    await put(objects, tmp_path, input_key(aged(queued()).spec.task_id))
    assert await remove_orphans(history, objects, days=days - 6.9) == 0
    assert await remove_orphans(history, objects, days=days - 7.1) == 1


async def test_orphans_are_removed_of_a_store_that_is_this_database_s_own(
    settings: Settings, empty_postgres_url: str, tmp_path: Path
) -> None:
    objects, key = ObjectStore.from_settings(settings), input_key(aged(queued()).spec.task_id)
    await put(objects, tmp_path, key)
    # The first time nothing is removed: others may use it, too, who did not say so yet.
    assert [await duties.remove_orphans(settings) for _ in range(3)] == [0, 1, 0]
    await put(objects, tmp_path, key)
    migrate(empty_postgres_url)
    with pytest.raises(ConflictError, match=r"S3_BUCKET.* belongs to another database"):
        await duties.remove_orphans(
            settings.model_copy(update={"database_url": empty_postgres_url})
        )
    assert await objects.get(key) == b"1"
