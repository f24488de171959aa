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

    with pytest.raises(BackupError, match="interrupted; nothing is kept"):
        _run(work())
    assert cleaned
