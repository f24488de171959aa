from collections.abc import AsyncIterator

import pytest

from inferstack.storage.database import Database
from inferstack.storage.history import History


@pytest.fixture
async def database(clean_postgres_url: str) -> AsyncIterator[Database]:
    database = Database(clean_postgres_url)
    yield database
    await database.close()


@pytest.fixture
def history(database: Database) -> History:
    return History(database)
