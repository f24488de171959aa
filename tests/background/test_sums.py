"""The digest of dead letters and the sums of usage."""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import text

from inferstack.background import duties
from inferstack.config import Settings
from inferstack.storage.database import Database
from inferstack.storage.dead_letters import DeadLetters
from inferstack.storage.history import History
from inferstack.storage.usage import Usage, UsageLine
from inferstack.task import Execution, Task, TaskError, TaskState
from tests.storage.samples import completed, queued

HOUR = datetime(2026, 11, 3, 10, tzinfo=UTC)
DAYS = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


def failed(kind: str, model: str = "echo", ago: float = 60.0) -> Task:
    when = time.time() - ago
    return completed(
        queued(model=model),
        result=None,
        state=TaskState.FAILED,
        error=TaskError(kind, 'with "quotes" and \x00'),
        completed_at=when,
    )


def done(at: datetime, tenant: str = "acme", **values: object) -> Task:
    """A task of a batch of four that took 2 s, 0.5 s after it came."""
    ended = at.timestamp()
    task = queued(tenant=tenant, cost=7.0)
    return msgspec.structs.replace(
        completed(task, created_at=ended - 1, started_at=ended - 0.5, completed_at=ended),
        execution=Execution("host:1:a", 1.0, 2000.0, 4),
        **values,
    )


async def test_the_digest_counts_by_model_and_error(
    settings: Settings, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    await history.upsert(
        [
            *(failed("engine-error") for _ in range(3)),
            failed("replica-crashed", "other"),
            failed("engine-error", ago=7200.0),
            completed(completed_at=time.time()),
        ]
    )
    assert await duties.digest(settings) == 4
    assert "4 dead letters in the last hour" in caplog.text
    assert "3 of echo:1: engine-error, 1 of other:1: replica-crashed" in caplog.text


async def test_no_dead_letters_no_line(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert await duties.digest(settings) == 0
    assert not caplog.records


async def test_usage_is_summed_by_hour_tenant_and_model(
    settings: Settings, history: History, database: Database
) -> None:
    await history.upsert(
        [
            *(done(HOUR + timedelta(minutes=n)) for n in range(3)),
            done(HOUR + timedelta(hours=1)),
            done(HOUR, tenant="other", state=TaskState.FAILED),
            queued(),
        ]
    )
    assert await duties.roll_up(settings) == 3
    usage = Usage(database)
    assert await usage.read("acme", *DAYS, "hour") == [
        UsageLine(HOUR, "acme", "echo", 1, 3, 0, 0, 0, 1.5, 1.5, 21.0),
        UsageLine(HOUR + timedelta(hours=1), "acme", "echo", 1, 1, 0, 0, 0, 0.5, 0.5, 7.0),
    ]
    everybody = await usage.read(None, *DAYS, "month")
    assert [(line.tenant, line.completed, line.failed) for line in everybody] == [
        ("acme", 4, 0),
        ("other", 0, 1),
    ]
    assert everybody[0].start == DAYS[0]
    assert await usage.read(None, DAYS[1], DAYS[1] + timedelta(days=30), "day") == []


async def test_sums_take_in_what_is_late_and_do_not_forget_what_was_removed(
    settings: Settings, history: History, database: Database
) -> None:
    tasks = [done(HOUR), done(HOUR)]
    await history.upsert(tasks)
    await duties.roll_up(settings)
    await history.upsert([done(HOUR + timedelta(hours=1)), done(HOUR + timedelta(minutes=59))])
    await duties.roll_up(settings)
    await history.delete([task.spec.task_id for task in tasks])
    await duties.roll_up(settings)
    counts = [line.completed for line in await Usage(database).read(None, *DAYS, "hour")]
    assert counts == [3, 1]


async def total(database: Database) -> tuple[int, int, float, float, float]:
    """Completed, failed, seconds of compute and in the queue, and cost, of everybody."""
    lines = await Usage(database).read(None, *DAYS, "hour")
    return (
        sum(line.completed for line in lines),
        sum(line.failed for line in lines),
        sum(line.compute_seconds for line in lines),
        sum(line.queue_seconds for line in lines),
        sum(line.cost for line in lines),
    )


async def archived(history: History, count: int, at: datetime = HOUR) -> list[str]:
    """Dead letters; returns their ids."""
    tasks = [done(at, state=TaskState.FAILED) for _ in range(count)]
    await history.upsert(tasks)
    return [task.spec.task_id for task in tasks]


async def test_what_was_purged_counts_with_what_failed_later_in_the_same_hour(
    settings: Settings, history: History, database: Database
) -> None:
    purged = await archived(history, 10)
    await duties.roll_up(settings)
    assert await DeadLetters(database).delete(purged) == set(purged)
    await archived(history, 8)
    for _ in range(2):
        await duties.roll_up(settings)
        assert await total(database) == (0, 18, 9.0, 9.0, 126.0)


async def test_what_was_purged_before_it_was_summed_counts(
    settings: Settings, history: History, database: Database
) -> None:
    letters = DeadLetters(database)
    await letters.delete(await archived(history, 3))
    await duties.roll_up(settings)
    assert await total(database) == (0, 3, 1.5, 1.5, 21.0)
    # Of an hour of which nothing is left, and nothing was summed yet.
    await letters.delete(await archived(history, 2, HOUR + timedelta(hours=1)))
    await duties.roll_up(settings)
    assert await total(database) == (0, 5, 2.5, 2.5, 35.0)


async def test_what_the_retention_removed_counts_with_what_is_archived_late(
    settings: Settings, history: History, database: Database
) -> None:
    tasks = [done(HOUR) for _ in range(5)]
    await history.upsert(tasks)
    await duties.roll_up(settings)
    await history.delete([task.spec.task_id for task in tasks[:3]])
    await history.delete([task.spec.task_id for task in tasks])
    await history.upsert([done(HOUR)])
    await duties.roll_up(settings)
    assert await total(database) == (6, 0, 3.0, 3.0, 42.0)


async def test_tasks_that_two_purges_remove_at_once_count_once(
    settings: Settings, history: History, database: Database
) -> None:
    hours = [HOUR + timedelta(hours=n) for n in range(5)]
    ids = [task_id for hour in hours for task_id in await archived(history, 4, hour)]
    letters = DeadLetters(database)
    purges = (letters.delete(some) for some in (ids, ids[::-1], ids[5:], ids[:15]))
    await asyncio.gather(*purges, duties.roll_up(settings))
    await duties.roll_up(settings)
    assert await total(database) == (0, 20, 10.0, 10.0, 140.0)
    assert await letters.delete(ids) == set()


async def test_what_is_no_dead_letter_stays_and_what_is_unfinished_counts_nowhere(
    settings: Settings, history: History, database: Database
) -> None:
    finished, waiting = done(HOUR), queued()
    await history.upsert([finished, waiting])
    ids = [finished.spec.task_id, waiting.spec.task_id]
    assert await DeadLetters(database).delete(ids) == set()
    await history.delete(ids)
    assert await history.unknown(set(ids)) == set(ids)
    await duties.roll_up(settings)
    assert await total(database) == (1, 0, 0.5, 0.5, 7.0)


async def test_what_was_summed_long_before_it_was_removed_is_not_summed_again(
    settings: Settings, history: History, database: Database
) -> None:
    ids = await archived(history, 2)
    await duties.roll_up(settings)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE tasks SET recorded_at = recorded_at - interval '1d'"))
    await DeadLetters(database).delete(ids)
    assert await duties.roll_up(settings) == 0
    assert await total(database) == (0, 2, 1.0, 1.0, 14.0)


async def test_a_task_that_is_archived_days_late_is_in_the_sums_of_its_hour(
    settings: Settings, history: History, database: Database
) -> None:
    await history.upsert([done(HOUR), queued()])
    await duties.roll_up(settings)
    await history.upsert([done(HOUR - timedelta(days=2)), done(HOUR - timedelta(days=1))])
    assert await duties.roll_up(settings) == 3
    lines = await Usage(database).read(None, *DAYS, "day")
    assert [(line.start.day, line.completed) for line in lines] == [(1, 1), (2, 1), (3, 1)]


async def test_a_clock_of_postgresql_that_was_days_ahead_hides_nothing_later(
    settings: Settings, history: History, database: Database
) -> None:
    await history.upsert([done(HOUR)])
    await duties.roll_up(settings)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE tasks SET recorded_at = recorded_at + interval '3d'"))
        await connection.execute(text("UPDATE usage SET summed_at = summed_at + interval '3d'"))
    await history.upsert([done(HOUR + timedelta(hours=3))])
    await duties.roll_up(settings)
    counts = [line.completed for line in await Usage(database).read(None, *DAYS, "hour")]
    assert counts == [1, 1]


async def test_sums_are_not_made_again_of_hours_of_which_nothing_was_archived_since(
    settings: Settings, history: History, database: Database
) -> None:
    waiting = queued()
    await history.upsert([done(HOUR), waiting])
    await duties.roll_up(settings)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE tasks SET recorded_at = recorded_at - interval '1d'"))
    assert await duties.roll_up(settings) == 0
    ended = HOUR + timedelta(hours=3)
    await history.upsert([completed(waiting, completed_at=ended.timestamp())])
    assert await duties.roll_up(settings) == 1
