"""`inferstack backup` and `inferstack restore`."""

import asyncio
import signal
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from inferstack import config
from inferstack.cli import place
from inferstack.cli.output import answers, errors
from inferstack.errors import BackupError

T = TypeVar("T")


def backup(
    folder: Annotated[
        Path | None,
        typer.Argument(help="The folder to make; named after the time if left out."),
    ] = None,
) -> None:
    """Backs up Redis, PostgreSQL and the object store, while they serve or not."""
    # Imported by these commands alone: SQLAlchemy takes longer to import than `status` to run.
    from inferstack.backup.save import save

    target = folder or Path(f"inferstack-backup-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    _run(save(place.home(), config.settings(), target, _tell))
    answers.print(f"The backup is in {target}.", soft_wrap=True)


def restore(
    folder: Annotated[Path, typer.Argument(help="The folder that `inferstack backup` made.")],
) -> None:
    """Restores a backup into a place that holds nothing, where no stack runs."""
    from inferstack.backup.restore import restore as put_back

    unfinished = _run(put_back(place.home(), config.settings(), folder, _tell))
    answers.print(
        f"Restored. Start it with `inferstack up`: {unfinished} unfinished tasks go on then.",
        soft_wrap=True,
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; interrupted by Ctrl-C or SIGTERM, it cleans up first."""

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None, "it runs"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            raise BackupError("interrupted; nothing is kept") from None

    return asyncio.run(interruptible())


def _tell(line: str) -> None:
    errors.print(line, soft_wrap=True)
