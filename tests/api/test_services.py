"""How the services start and stop."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from inferstack.api import services
from inferstack.api.problems import problem
from inferstack.api.services import Lifetime
from inferstack.config import Settings
from inferstack.errors import ConfigurationError, InferstackError
from inferstack.storage.migrations import migrate

PASSWORD = "correct horse battery"


def settings(home: Path, **given: Any) -> Settings:
    fields: dict[str, Any] = {
        "inferstack_home": home,
        "model_path": home,
        "redis_url": "redis://127.0.0.1:1",
        "database_url": "postgresql://a:b@127.0.0.1:1/x",
    }
    return Settings(**(fields | given))


@pytest.mark.parametrize(
    ("name", "password", "setting"),
    [
        ("admin", "short", "ADMIN_PASSWORD"),
        ("admin", "x" * 1025, "ADMIN_PASSWORD"),
        (" admin", PASSWORD, "ADMIN_USERNAME"),
    ],
)
def test_an_administrator_that_cannot_be_made_is_a_configuration_error(
    tmp_path: Path, name: str, password: str, setting: str
) -> None:
    with pytest.raises(ConfigurationError, match=setting) as caught:
        Lifetime(settings(tmp_path, admin_username=name, admin_password=password))
    assert password not in caught.value.detail


def test_who_must_log_in_needs_something_that_signs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AUTH_REQUIRED=true needs SECRET_KEY"):
        Lifetime(settings(tmp_path, auth_required=True))


async def test_only_logs_say_where_a_service_is(tmp_path: Path) -> None:
    lifetime = Lifetime(settings(tmp_path))
    queue, database, _ = lifetime._checks()
    for check in (queue, database):
        with pytest.raises(InferstackError) as caught:
            await check.ask()
        assert "127.0.0.1" in str(caught.value)
        _, _, answer = problem(caught.value, "/api/inference")
        assert answer["detail"].endswith(" does not answer")
    await lifetime.stop()


async def test_the_administrator_is_made_once_the_database_lets_it(
    clean_redis_url: str,
    empty_postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(services, "ADMIN_RETRY", 0.05)
    urls = {"redis_url": clean_redis_url, "database_url": empty_postgres_url}
    lifetime = Lifetime(settings(tmp_path, admin_password=PASSWORD, **urls))
    await lifetime.start()
    try:
        await asyncio.sleep(0.4)
        await asyncio.to_thread(migrate, empty_postgres_url)
        async with asyncio.timeout(10):
            while "made the administrator" not in caplog.messages:
                await asyncio.sleep(0.05)
        assert await lifetime.services.accounts.verify_password("admin", PASSWORD)
    finally:
        await lifetime.stop()
    assert len([line for line in caplog.messages if "cannot make the administrator" in line]) == 1


async def test_a_start_that_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    starting = asyncio.create_task(Lifetime(settings(tmp_path)).start())
    await asyncio.sleep(0.1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(starting, 3)
    assert asyncio.all_tasks() == before
