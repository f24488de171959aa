"""Where a backup is restored to: empty before, and empty again or said not to be if it fails."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from inferstack.config import Settings
from inferstack.errors import BackupError, InferstackError
from inferstack.local import control, leftovers
from inferstack.local.home import SPACE_NEEDED, Home
from inferstack.local.place import data_of
from inferstack.local.servers import servers
from inferstack.queue.connection import connect
from inferstack.queue.transfer import empty
from inferstack.storage import dump
from inferstack.storage.objects import ObjectStore, is_remote


@asynccontextmanager
async def target(home: Home, wanted: Settings, size: int) -> AsyncIterator[Settings]:
    """Has an empty place for a restore, with servers that answer, until the block ends.

    What is embedded is emptied again when the block raises. Services elsewhere are left as they
    are then, which the error says.

    Args:
        home: INFERSTACK_HOME.
        wanted: the settings from the environment.
        size: bytes that will be restored.

    Yields:
        The settings with every URL in them.

    Raises:
        BackupError: the place is in use or not empty, or has no room.
        StackError: its servers cannot run.
    """
    control.refuse_second(home)
    home.prepare()
    if not home.lock():
        raise BackupError(f"a stack is starting or stopping in {home.root}: try again")
    try:
        if home.restoring.exists():
            _clear(home)
        _refuse_data(home)
        _refuse_without_room(home, size)
        home.prepare()
        home.restoring.touch()
        try:
            async with servers(home, wanted) as settings:
                await _refuse_services(settings)
                with _told(wanted):
                    yield settings
        except BaseException:
            _clear(home)
            raise
        home.restoring.unlink()
    finally:
        home.unlock()


def _refuse_data(home: Home) -> None:
    """Looks at the home before any server runs on what may be there.

    Raises:
        BackupError: it holds data, or what a stack without its supervisor left running.
    """
    if left := control.left(home):
        raise BackupError(
            f"these still run in {home.root}: {', '.join(left)}; end them with `inferstack down`"
        )
    for path in (home.redis, home.objects, data_of(home)):
        if path.is_dir() and any(path.iterdir()):
            raise BackupError(
                f"{path} holds data: a backup is restored into an empty home only, "
                "set INFERSTACK_HOME to a new folder"
            )


def _refuse_without_room(home: Home, size: int) -> None:
    # Tables are larger than their dump, and PostgreSQL writes them to its log first.
    needed = SPACE_NEEDED + 3 * size
    free = shutil.disk_usage(home.root).free
    if free < needed:
        raise BackupError(
            f"only {free // 2**20} MB are free for {home.root}, {needed // 2**20} MB are needed: "
            "free some, or set INFERSTACK_HOME to a folder on another disk"
        )


async def _refuse_services(settings: Settings) -> None:
    """Looks into every service, also those elsewhere.

    Raises:
        BackupError: one holds data.
    """
    redis = connect(str(settings.redis_url))
    try:
        if not await empty(redis):
            raise _not_empty("Redis", "keys of inferstack", "REDIS_URL", "database")
    finally:
        await redis.aclose()
    if tables := dump.look(str(settings.database_url)).tables:
        raise _not_empty("PostgreSQL", f"the table {tables[0]}", "DATABASE_URL", "database")
    async for key in ObjectStore.from_settings(settings).all_keys():
        raise _not_empty("the object store", key, "S3_BUCKET", "bucket")


def _not_empty(service: str, what: str, variable: str, kind: str) -> BackupError:
    return BackupError(
        f"{service} holds {what} already: a backup is restored into an empty {kind} only, "
        f"set {variable} to another one"
    )


@contextmanager
def _told(wanted: Settings) -> Iterator[None]:
    """Has the error of a restore tell what it leaves behind."""
    try:
        yield
    except (InferstackError, OSError, asyncio.CancelledError) as error:
        why = str(error) or "interrupted"
        places = (
            ("the Redis of REDIS_URL", wanted.redis_url is not None),
            ("the database of DATABASE_URL", wanted.database_url is not None),
            ("the bucket of S3_BUCKET", is_remote(wanted)),
        )
        rest = " and ".join(place for place, used in places if used)
        told = f"; a part may be in {rest}: empty what you restore into" if rest else ""
        raise BackupError(f"{why}; the backup is not restored{told}") from error


def _clear(home: Home) -> None:
    """Removes what a restore has put into a home that was empty."""
    leftovers.end(home)
    folders = (home.redis, home.objects, data_of(home).parent)
    home.keep_outside(None)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if not any(folder.exists() for folder in folders):
        home.restoring.unlink(missing_ok=True)
