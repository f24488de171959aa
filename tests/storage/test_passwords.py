import asyncio
import threading

import pytest

from inferstack.errors import LoginsBusyError
from inferstack.storage import passwords
from inferstack.storage.passwords import MAX_WAITING, PARALLEL, Passwords


async def test_a_flood_of_logins_is_refused_and_not_queued_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()
    monkeypatch.setattr(passwords, "_matches", lambda *_: go.wait(10))
    found = Passwords()
    checks = [asyncio.create_task(found.matches("hash", "x")) for _ in range(MAX_WAITING + 10)]
    await asyncio.sleep(0.05)
    go.set()
    answers = await asyncio.gather(*checks, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, LoginsBusyError)]
    assert len(refused) == 10 - PARALLEL
    assert refused[0].retry_after
    assert answers.count(True) == MAX_WAITING + PARALLEL
    assert await found.matches("hash", "x")
