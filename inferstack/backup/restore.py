"""Restores a backup: the object store first, PostgreSQL then, Redis last.

The other way round than it was made: what refers to something comes after it. Redis holds the work,
so nothing can run before everything is there.
"""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from inferstack.backup import folder
from inferstack.backup.folder import Manifest
from inferstack.backup.target import target
from inferstack.concurrency import limited_group
from inferstack.config import Settings
from inferstack.errors import BackupError, StackError
from inferstack.lifecycle.reconcile import reconcile
from inferstack.local import binaries, redis_server
from inferstack.local.home import Home, free_port
from inferstack.local.servers import server
from inferstack.queue import transfer
from inferstack.queue.connection import Redis, clock_ms, connect
from inferstack.storage import dump
from inferstack.storage.database import Database
from inferstack.storage.migrations import knows, migrate
from inferstack.storage.objects import ObjectStore

ABREAST = 8
"""Objects that are written at once."""

Tell = Callable[[str], object]


async def restore(home: Home, wanted: Settings, source: Path, tell: Tell) -> int:
    """Puts a backup into an empty place, where no stack may run; starts none.

    Args:
        home: INFERSTACK_HOME; it must hold no data.
        wanted: the settings from the environment; services that they name must be empty.
        source: the folder of the backup.
        tell: called with a line for each part that is done.

    Returns:
        How many tasks in Redis have not finished and go on.

    Raises:
        BackupError, StackError: the backup or its place does not do, or the restore failed, and
            what that leaves behind.
        QueueUnavailableError, StorageUnavailableError: a service did not answer at the start.
    """
    manifest = await asyncio.to_thread(folder.read, source)
    if not knows(manifest.revision):
        raise BackupError(
            f"{source} was made by inferstack {manifest.inferstack}, whose tables are newer "
            f"({manifest.revision}): update inferstack"
        )
    tool = binaries.postgres_tool("pg_restore", manifest.postgres)
    tell(f"The backup of {manifest.created_at} is whole.")
    async with target(home, wanted, manifest.bytes) as settings:
        if kept := folder.secrets(source):
            home.adopt(secret_key=kept.secret_key, admin_password=kept.admin_password)
        store = ObjectStore.from_settings(settings)
        tell(f"Objects: {await _restore_objects(store, source)}")
        database_url = str(settings.database_url)
        await asyncio.to_thread(dump.restore, tool.path, database_url, source / folder.POSTGRES)
        await asyncio.to_thread(migrate, database_url)
        tell("PostgreSQL: restored")
        return await _restore_redis(settings, manifest, source)


async def _restore_objects(store: ObjectStore, source: Path) -> int:
    count = 0
    async with limited_group(ABREAST) as start:
        for key in folder.objects(source):
            await start(_put, store, source, key)
            count += 1
    return count


async def _put(store: ObjectStore, source: Path, key: str) -> None:
    body = await asyncio.to_thread((source / folder.OBJECTS / key).read_bytes)
    await store.put(key, body)


async def _restore_redis(settings: Settings, manifest: Manifest, source: Path) -> int:
    redis = connect(str(settings.redis_url))
    database = Database.from_settings(settings)
    try:
        async with _snapshot(manifest, source) as old:
            late_ms = max(0, await clock_ms(redis) - manifest.redis_time_ms)
            await transfer.copy(old, redis, late_ms)
        return await reconcile(redis, database)
    finally:
        await redis.aclose()
        await database.close()


@asynccontextmanager
async def _snapshot(manifest: Manifest, source: Path) -> AsyncIterator["Redis"]:
    """A client of a server that has loaded the snapshot.

    Every server of this machine is tried: one that is not made by the same people, or is older,
    does not read it.

    Raises:
        BackupError: none reads it.
    """
    tried = []
    for binary in binaries.redis_servers():
        place = Path(tempfile.mkdtemp(prefix="inferstack-restore-"))
        port, password = free_port(None), secrets.token_urlsafe(24)
        program = redis_server.reader(binary, source / folder.REDIS, place, port, password)
        try:
            async with server(program, place):
                redis = connect(redis_server.url(port, password, manifest.redis_database))
                try:
                    yield redis
                finally:
                    await redis.aclose()
                return
        except StackError:
            tried.append(str(binary))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    raise BackupError(
        f"no Redis of this machine reads the snapshot, which {manifest.redis} made: "
        f"install that server or a newer one (tried: {', '.join(tried) or 'there is none'})"
    )
