import asyncio

import psycopg
import pytest

from inferstack.errors import ListsBusyError, StorageUnavailableError
from inferstack.storage.database import Database
from inferstack.storage.dead_letters import DeadLetters, LetterFilter
from inferstack.storage.history import History, HistoryFilter

NOTHING = LetterFilter(error="nothing")
"""Each dead letter has to be read to find none."""


async def test_slow_lists_of_any_kind_leave_connections_to_others(
    clean_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.storage.database.LIST_TIMEOUT", 3)
    database = Database(clean_postgres_url, pool_size=2)  # and two more at most
    history, letters = History(database), DeadLetters(database)
    kinds = (
        lambda: letters.list(None, NOTHING, 50, None),
        lambda: letters.purgeable(None, NOTHING, 50),
        lambda: history.list(None, HistoryFilter()),
    )
    with (
        psycopg.connect(clean_postgres_url) as other,
        psycopg.connect(clean_postgres_url, autocommit=True) as watcher,
    ):
        other.execute("LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE")
        lists = [asyncio.ensure_future(kind()) for kind in kinds for _ in range(2)]
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while watcher.execute(blocked).fetchone() != (3,):
                await asyncio.sleep(0.02)
            await database.check()
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*lists, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageUnavailableError] * 6
    await database.close()


async def test_lists_for_which_too_many_wait_are_refused_at_once(
    clean_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.storage.database.LISTS_WAITING", 0)
    database = Database(clean_postgres_url)
    letters = DeadLetters(database)
    with pytest.raises(ListsBusyError):
        await letters.list(None, NOTHING, 50, None)
    with pytest.raises(ListsBusyError):
        await letters.purgeable(None, NOTHING, 50)
    await database.close()
