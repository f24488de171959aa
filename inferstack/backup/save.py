"""Makes a backup: Redis first, PostgreSQL then, the object store last.

In this order nothing is missing. A task moves from Redis to PostgreSQL: what Redis has forgotten
when it is asked is in PostgreSQL when that is asked. And bodies are written before what refers to
them, so a reference in either finds its object. See `lifecycle/reconcile.py` for what it costs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import msgspec

from inferstack import __version__
from inferstack.backup import folder
from inferstack.backup.folder import Draft, Manifest, Secrets
from inferstack.concurrency import limited_group
from inferstack.config import Settings
from inferstack.errors import BackupError, NotFoundError
from inferstack.local import binaries, control
from inferstack.local.home import Home
from inferstack.local.servers import servers
from inferstack.queue import snapshot
from inferstack.storage import dump
from inferstack.storage.objects import ObjectStore

ABREAST = 8
"""Objects that are read at once."""

Tell = Callable[[str], object]


async def save(home: Home, wanted: Settings, target: Path, tell: Tell) -> None:
    """Writes a backup; the stack may serve meanwhile, and also may not run.

    Args:
        home: INFERSTACK_HOME.
        wanted: the settings from the environment; the same as those of the stack.
        target: the folder to make.
        tell: called with a line for each part that is done.

    Raises:
        BackupError, StackError: it cannot be made; nothing is left in its place.
        QueueUnavailableError, StorageUnavailableError: a service does not answer; neither.
    """
    async with _source(home, wanted) as settings:
        with folder.draft(target) as draft:
            folder.write_manifest(draft, await _save(draft, home, settings, tell))


async def _save(draft: Draft, home: Home, settings: Settings, tell: Tell) -> Manifest:
    redis_url, database_url = str(settings.redis_url), str(settings.database_url)
    store = ObjectStore.from_settings(settings)
    found = await asyncio.to_thread(dump.look, database_url)
    if found.revision is None:
        raise BackupError("the database of DATABASE_URL has no tables of inferstack")
    tool = binaries.postgres_tool("pg_dump", found.major)

    began = datetime.now(UTC)
    redis = await asyncio.to_thread(snapshot.fetch, redis_url, draft.path / folder.REDIS)
    tell(f"Redis: {_size(draft.add(folder.REDIS))}")
    await asyncio.to_thread(dump.dump, tool.path, database_url, draft.path / folder.POSTGRES)
    tell(f"PostgreSQL: {_size(draft.add(folder.POSTGRES))}")
    before, size = draft.files, draft.bytes
    await _copy_objects(store, draft)
    if found.keys and not any((draft.path / folder.OBJECTS / key).is_file() for key in found.keys):
        raise BackupError(
            "the object store has none of the objects that the newest tasks refer to: "
            "set S3_ENDPOINT, S3_BUCKET and their keys, or INFERSTACK_HOME, as for the stack"
        )
    tell(f"Objects: {draft.files - before}, {_size(draft.bytes - size)}")
    if identity := home.identity():
        kept = Secrets(secret_key=identity.secret_key, admin_password=identity.admin_password)
        await draft.write(folder.SECRETS, msgspec.json.encode(kept))
    return Manifest(
        format=folder.FORMAT,
        inferstack=__version__,
        created_at=began.isoformat(timespec="seconds"),
        redis=redis.server,
        redis_database=redis.database,
        redis_time_ms=redis.taken_ms,
        postgres=tool.major,
        revision=found.revision,
        files=draft.files,
        bytes=draft.bytes,
        sums=draft.seal(),
    )


@asynccontextmanager
async def _source(home: Home, wanted: Settings) -> AsyncIterator[Settings]:
    """The settings with URLs that answer: of what runs, or of servers started for the while."""
    if wanted.redis_url and wanted.database_url:
        yield wanted
    elif control.running(home):
        yield control.known_settings(home, wanted)
    else:
        if home.identity() is None:
            raise BackupError(control.absence(home))
        async with _alone(home, wanted) as settings:
            yield settings


@asynccontextmanager
async def _alone(home: Home, wanted: Settings) -> AsyncIterator[Settings]:
    """Has the home for itself, and runs its servers."""
    control.refuse_part(home)
    home.prepare()
    if not home.lock():
        raise BackupError(f"a stack is starting or stopping in {home.root}: try again")
    try:
        if left := control.left(home):
            raise BackupError(
                f"these still run in {home.root} without their supervisor: {', '.join(left)}; "
                "`inferstack down` ends them, `inferstack up` takes over"
            )
        async with servers(home, wanted) as settings:
            yield settings
    finally:
        home.unlock()


async def _copy_objects(store: ObjectStore, draft: Draft) -> None:
    (draft.path / folder.OBJECTS).mkdir(mode=0o700)
    async with limited_group(ABREAST) as start:
        async for key in store.all_keys():
            _check_key(key)
            await start(_copy_one, store, draft, key)


async def _copy_one(store: ObjectStore, draft: Draft, key: str) -> None:
    try:
        body = await store.get(key)
    except NotFoundError:
        return  # Removed since it was listed: its task was too old to be kept.
    await draft.write(f"{folder.OBJECTS}/{key}", body)


def _check_key(key: str) -> None:
    """Refuses what would be another file than the one of its key."""
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts or str(path) != key or not key.isprintable():
        raise BackupError(
            f"the object store holds {key!r}, which is not inferstack's: "
            "give inferstack a bucket of its own"
        )


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MB" if count >= 2**20 else f"{count / 2**10:.1f} KB"
