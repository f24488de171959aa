"""Large inputs and results: a local folder or any S3-compatible store, by one library."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from inferstack.config import Settings
from inferstack.errors import NotFoundError, StorageRefusedError, StorageUnavailableError

FOLDER = "objects"
PROBE = "health"
"""Key of an object that nobody writes."""
DEFAULT_BUCKET = str(Settings.model_fields["s3_bucket"].default)


class ObjectStore:
    """Bodies by key. Writing a key again with the same body changes nothing."""

    def __init__(self, store: LocalStore | S3Store, patience: float | None = None) -> None:
        """Args: store: where the bodies lie. Else see `from_settings`."""
        self._store = store
        self._patience = patience
        self._folder = store.prefix if isinstance(store, LocalStore) else None
        self._bucket_seen = self._folder is not None

    @classmethod
    def from_settings(cls, settings: Settings, patience: float | None = None) -> "ObjectStore":
        """S3 when an endpoint, a key or a bucket of one's own is set, else a local folder.

        Args:
            settings: where it is.
            patience: seconds that one call may take; as long as the library tries if None.

        Raises:
            StorageUnavailableError: the local folder cannot be made.
        """
        if is_remote(settings):
            return cls(_s3(settings), patience)
        folder = settings.inferstack_home.absolute() / FOLDER
        with _translated(FOLDER):
            _make_private(folder)
            return cls(LocalStore(folder, automatic_cleanup=True), patience)

    async def put(self, key: str, body: bytes) -> None:
        """Stores a body; when this returns it survives a crash of the machine.

        Args:
            key: a path such as `tasks/<id>/input`.
            body: any bytes.

        Raises:
            StorageUnavailableError: the store does not answer or has no room.
        """
        async with self._asked(key):
            await self._store.put_async(key, body)
            if self._folder is not None:
                await asyncio.to_thread(_sync, Path(self._folder) / key, Path(self._folder))

    async def get(self, key: str) -> bytes:
        """The body of a key.

        Raises:
            NotFoundError: there is none.
            StorageUnavailableError: the store does not answer, or has no such bucket.
        """
        async with self._asked(key):
            found = await self._store.get_async(key)
            return bytes(await found.bytes_async())

    async def size(self, key: str) -> int:
        """The bytes of a body, without reading it.

        Raises:
            NotFoundError: there is none.
            StorageUnavailableError: the store does not answer.
        """
        async with self._asked(key):
            return int((await self._store.head_async(key))["size"])

    async def delete(self, keys: Sequence[str]) -> None:
        """Removes bodies and folders left empty; keys that are gone already do no harm.

        Raises:
            StorageUnavailableError: the store does not answer.
        """
        for key in keys:
            try:
                async with self._asked(key):
                    await self._store.delete_async(key)
            except NotFoundError:
                continue

    async def all_keys(self) -> AsyncIterator[str]:
        """Every key there is, in no order; those written or removed meanwhile may be among them.

        Raises:
            StorageUnavailableError: the store does not answer.
        """
        with _translated(FOLDER):
            async for found in self._store.list(chunk_size=1000):
                for entry in found:
                    yield entry["path"]

    async def old_keys(self, folder: str, end: str, before: datetime) -> AsyncIterator[str]:
        """The keys of a folder that sort before another key, written before a time.

        S3 lists in order, so that the keys behind the end cost nothing.

        Args:
            folder: such as `tasks`.
            end: the first key that is not meant any more.
            before: by the clock of the store.

        Raises:
            StorageUnavailableError: the store does not answer.
        """
        with _translated(folder):
            async for found in self._store.list(folder, chunk_size=1000):
                for entry in found:
                    if entry["path"] >= end:
                        if self._folder is None:
                            return
                    elif entry["last_modified"] < before:
                        yield entry["path"]

    async def check(self) -> None:
        """Asks the store for an answer, for health checks.

        Raises:
            StorageUnavailableError: there is none, or no bucket.
            StorageRefusedError: it refuses the keys.
        """
        with suppress(NotFoundError):
            async with self._answered(PROBE):
                await self._store.head_async(PROBE)
        if not self._bucket_seen:
            await self._see_bucket()

    @asynccontextmanager
    async def _asked(self, key: str) -> AsyncIterator[None]:
        """As `_answered`; tells an object that is not there from a bucket that is not."""
        try:
            async with self._answered(key):
                yield
        except NotFoundError:
            if self._folder is None:
                await self._see_bucket()
            raise

    @asynccontextmanager
    async def _answered(self, key: str) -> AsyncIterator[None]:
        with _translated(key):
            try:
                async with asyncio.timeout(self._patience):
                    yield
            except TimeoutError:
                if self._patience is None:
                    raise
                raise StorageUnavailableError(
                    f"the object store did not answer within {self._patience:g} s"
                ) from None

    async def _see_bucket(self) -> None:
        """A bucket that is not there looks like an object that is not there."""
        try:
            async with self._answered(PROBE):
                await self._store.list_with_delimiter_async(prefix=PROBE)
        except (NotFoundError, StorageUnavailableError) as error:
            raise StorageUnavailableError("S3_BUCKET cannot be listed", cause=str(error)) from error
        self._bucket_seen = True


def is_remote(settings: Settings) -> bool:
    """Whether the settings name an object store, and not a folder of this machine."""
    own_bucket = settings.s3_bucket != DEFAULT_BUCKET
    return bool(settings.s3_endpoint or settings.s3_access_key or own_bucket)


def _s3(settings: Settings) -> S3Store:
    """Without keys the client looks for the machine's own credentials, as on AWS."""
    access, secret = settings.s3_access_key, settings.s3_secret_key
    options: dict[str, Any] = {"region": settings.s3_region}
    if settings.s3_endpoint:
        options["endpoint"] = settings.s3_endpoint
    if access and secret:
        options["access_key_id"] = access.get_secret_value()
        options["secret_access_key"] = secret.get_secret_value()
    plain = (settings.s3_endpoint or "").startswith("http://")
    return S3Store(
        settings.s3_bucket,
        **options,
        client_options={"allow_http": plain, "timeout": "30s", "connect_timeout": "3s"},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=15)},
    )


def _make_private(folder: Path) -> None:
    """Makes the folder for its owner only, also one that an earlier version left open to all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Where it is somebody else's, that user decides who may read it.
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)


def _sync(path: Path, folder: Path) -> None:
    """Writes a file and the folders that lead to it through to the disk."""
    for part in (path, *path.parents):
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        if part == folder:
            return


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turns the library's errors into errors of inferstack."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no object {key}") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StorageRefusedError(
            "S3_ACCESS_KEY, S3_SECRET_KEY: the object store refuses them", cause=_line(error)
        ) from error
    except (BaseError, OSError) as error:
        raise StorageUnavailableError(
            f"the object store failed on {key}", cause=_line(error)
        ) from error


def _line(error: Exception) -> str:
    """What an error says, without the many lines of details that the library adds."""
    return str(error).strip().split("\n", 1)[0]
