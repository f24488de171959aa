"""How `inferstack backup` and `restore` end."""

import asyncio
import os
import signal

import pytest

from inferstack.cli.backup import _run
from inferstack.errors import BackupError


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_one_line_after_it_has_cleaned_up(number: int) -> None:
    cleaned = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    # Ctrl-C is ignored by what a script runs in the background, as it may run these tests.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(BackupError, match="interrupted; nothing is kept"):
            _run(work())
    finally:
        signal.signal(signal.SIGINT, before)
    assert cleaned
