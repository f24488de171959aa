"""`/api/usage` over a real PostgreSQL."""

import httpx
import pytest

from inferstack.background import duties
from inferstack.config import Settings
from inferstack.storage.database import Database
from inferstack.storage.history import History
from tests.api.test_dead_letters import bearer, client, settings
from tests.background.test_sums import HOUR, done

__all__ = ["client", "settings"]

NOVEMBER = {"since": "2026-11-01", "until": "2026-11-30"}


@pytest.fixture
async def used(settings: Settings) -> None:
    database = Database.from_settings(settings)
    await History(database).upsert([done(HOUR), done(HOUR), done(HOUR, tenant="other")])
    await database.close()
    await duties.roll_up(settings)


@pytest.mark.usefixtures("used")
async def test_a_caller_sees_its_own_and_an_admin_all(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/usage", params=NOVEMBER)
    assert answer.status_code == 200, answer.text
    (line,) = answer.json()["usage"]
    assert line == {
        "start": "2026-11-03T00:00:00Z",
        "tenant": "acme",
        "model": "echo",
        "model_version": 1,
        "completed": 2,
        "failed": 0,
        "cancelled": 0,
        "expired": 0,
        "compute_seconds": 1.0,
        "queue_seconds": 1.0,
        "cost": 14.0,
    }
    admin = bearer("root", "admin")
    everybody = await client.get("/api/usage", params=NOVEMBER, headers=admin)
    assert [line["tenant"] for line in everybody.json()["usage"]] == ["acme", "other"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"period": "year"}, "period"),
        ({"since": "yesterday"}, "since"),
        ({"until": "0001-01-02"}, "until"),
        ({"until": "9999-12-31T23:59:59-14:00"}, "until"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
        ({"since": "9999-12-31", "until": "9999-12-31T23:59"}, "until"),
        ({"until": "1969-12-31T23:59:59"}, "until"),
        ({"since": "2026-11-01T00:00:00+24:00"}, "since"),
        ({"since": "2026-11-02", "until": "2026-11-01"}, "since"),
        ({"since": "2020-01-01", "until": "2026-11-01", "period": "hour"}, "since"),
    ],
)
async def test_a_wrong_query_is_422_and_names_the_field(
    client: httpx.AsyncClient, query: dict[str, str], field: str
) -> None:
    answer = await client.get("/api/usage", params=query)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field


async def test_without_usage_the_list_is_empty(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/usage")).json()["usage"] == []
