"""A backup on disk: a folder with a manifest, and a checksum of every file."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from inferstack.errors import BackupError
from inferstack.local.home import write_private

FORMAT = 1
"""Of what is in the folder and what it means."""

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
"""In the format of `sha256sum`, so that a backup can be checked without inferstack."""
REDIS = "redis.rdb"
POSTGRES = "postgres.dump"
SECRETS = "secrets.json"
OBJECTS = "objects"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is of; written last, so without it a backup was not finished."""

    format: int
    inferstack: str
    """Version of what made the backup."""
    created_at: str
    """ISO 8601, UTC: when Redis was asked, which is the moment that the backup is of."""
    redis: str
    """Name and version of the server."""
    redis_database: int
    redis_time_ms: int
    """The same moment by the clock of Redis."""
    postgres: int
    """Major version of the `pg_dump`."""
    revision: str
    """Version of the tables."""
    files: int
    bytes: int
    """Of all files together."""
    sums: str
    """SHA-256 of the file with the checksums."""


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What an embedded stack has chosen by itself and its users go on using."""

    secret_key: str
    admin_password: str


class Draft:
    """A backup that is being made: nobody can take it for one before it is finished."""

    def __init__(self, path: Path) -> None:
        """Args: path: of the folder, which exists."""
        self.path = path
        self.bytes = 0
        self._sums: list[str] = []

    def add(self, name: str) -> int:
        """Notes a file that something else has written, once it is on disk; returns its size.

        Args:
            name: its path in the folder; parts by `/`.
        """
        path = self.path / name
        _sync(path)
        size = path.stat().st_size
        self._note(name, _digest(path), size)
        return size

    async def write(self, name: str, body: bytes) -> None:
        """Writes a file through to the disk, with the folders around it."""
        path = self.path / name
        # Not in the thread: it may outlive an interrupted backup, and must not make it anew.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(_write, path, body)
        self._note(name, hashlib.sha256(body).hexdigest(), len(body))

    def _note(self, name: str, digest: str, size: int) -> None:
        self._sums.append(f"{digest}  {name}\n")
        self.bytes += size

    @property
    def files(self) -> int:
        """How many files it has."""
        return len(self._sums)

    def seal(self) -> str:
        """Writes the file with the checksums; returns its own checksum."""
        body = "".join(self._sums).encode()
        write_private(self.path / SUMS, body)
        return hashlib.sha256(body).hexdigest()


@contextmanager
def draft(target: Path) -> Iterator[Draft]:
    """A folder beside its place, moved there when the block ends and removed when it raises.

    Everything in it can be read by its owner alone.

    Raises:
        BackupError: there is something in its place, or it cannot be written.
    """
    target = target.absolute()
    if target.exists():
        raise BackupError(f"{target} exists already: name a folder that does not")
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    before = os.umask(0o077)  # also for what other programs write
    try:
        fresh.mkdir(mode=0o700, parents=True)
        yield Draft(fresh)
        for path in (fresh, *fresh.rglob("*/")):
            _sync(path)
        fresh.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise BackupError(
            f"cannot write the backup {target}: {error.strerror or error}; nothing is kept of it"
        ) from error
    finally:
        os.umask(before)
        shutil.rmtree(fresh, ignore_errors=True)


def write_manifest(draft: Draft, manifest: Manifest) -> None:
    """Makes a backup of a draft."""
    write_private(draft.path / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))


def read(path: Path) -> Manifest:
    """The manifest of a backup, once every file of it is found whole.

    Raises:
        BackupError: it is no backup, not whole, or made by a version that knows more.
    """
    manifest = _manifest(path)
    sums = path / SUMS
    if not sums.is_file() or _digest(sums) != manifest.sums:
        raise BackupError(f"the backup is damaged: {sums} is not as it was written")
    checked = 0
    for digest, name in _lines(sums):
        file = path / name
        if not file.is_file():
            raise BackupError(f"the backup is not whole: {file} is missing")
        if _digest(file) != digest:
            raise BackupError(f"the backup is damaged: {file} is not as it was written")
        checked += 1
    if checked != manifest.files:
        raise BackupError(f"the backup is damaged: {sums} names {checked} files")
    return manifest


def objects(path: Path) -> Iterator[str]:
    """The keys of the objects in a backup."""
    start = f"{OBJECTS}/"
    return (name.removeprefix(start) for _, name in _lines(path / SUMS) if name.startswith(start))


def secrets(path: Path) -> Secrets | None:
    """The secrets in a backup; None if it has none."""
    try:
        return msgspec.json.decode((path / SECRETS).read_bytes(), type=Secrets)
    except FileNotFoundError:
        return None


def _manifest(path: Path) -> Manifest:
    try:
        body = (path / MANIFEST).read_bytes()
        made = msgspec.json.decode(body, type=_Made)
        if made.format <= FORMAT:
            return msgspec.json.decode(body, type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise BackupError(
            f"{path} is no backup, or not a whole one: it has no {MANIFEST}"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupError(f"cannot read {path / MANIFEST}: {error}") from None
    raise BackupError(
        f"{path} was made by inferstack {made.inferstack}, whose backups this version cannot "
        "read: update inferstack"
    )


class _Made(msgspec.Struct, frozen=True):
    """What every manifest tells, whatever its format."""

    format: int
    inferstack: str


def _write(path: Path, body: bytes) -> None:
    path.write_bytes(body)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(sums: Path) -> Iterator[tuple[str, str]]:
    with sums.open() as lines:
        for line in lines:
            digest, _, name = line.rstrip("\n").partition("  ")
            yield digest, name


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
