"""What must not end a stack that runs."""

import asyncio
import logging

import pytest

from inferstack.concurrency import end
from inferstack.config import load
from inferstack.local import logs, supervisor
from inferstack.local.home import Home
from inferstack.local.supervisor import Supervisor


async def test_the_stack_goes_on_when_a_log_cannot_be_bounded(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(logs, "bound", refused)
    monkeypatch.setattr(supervisor, "LOOK_AFTER", 0.01)
    (home.logs / "api.log").touch()
    running = Supervisor(home, load(), ray=False, show=lambda _: None)
    looking = asyncio.create_task(running._look_after())
    try:
        async with asyncio.timeout(10):
            while len(caplog.records) < 3 and not looking.done():
                await asyncio.sleep(0.01)
        assert not looking.done()
    finally:
        await end(looking)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
