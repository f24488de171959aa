"""The folder that holds everything the embedded stack keeps."""

import fcntl
import os
import secrets
import shutil
import socket
from pathlib import Path

import msgspec

from inferstack.errors import StackError

SPACE_NEEDED = 500 * 1024 * 1024
"""Bytes that must be free to start: PostgreSQL takes 50 MB, its log and the AOF grow."""


class Identity(msgspec.Struct, kw_only=True):
    """What is chosen once and kept for the life of a home: its secrets and its ports."""

    stack_id: str
    """Marks every process that belongs to this home; a copy of the home has the same."""
    redis_password: str
    postgres_password: str
    secret_key: str
    admin_password: str
    redis_port: int | None = None
    postgres_port: int | None = None
    postgres_data: str | None = None
    """Where PostgreSQL's data is if not in the home; empty if it is, None if an earlier version
    did not say."""
    postgres_home: str = ""
    """The path that the home had when that was written."""


class Home:
    """Paths inside INFERSTACK_HOME, and the lock that lets one supervisor run there."""

    def __init__(self, root: Path) -> None:
        """Touches nothing.

        Args:
            root: INFERSTACK_HOME; a relative path counts from the working directory.
        """
        self.root = root.absolute()
        self.logs = self.root / "logs"
        self.redis = self.root / "redis"
        self.objects = self.root / "objects"
        self.state_file = self.root / "state.json"
        self.restoring = self.root / "restoring"
        """There while a backup is restored: what else is there is then not whole."""
        self._identity_file = self.root / "identity.json"
        self._lock: int | None = None

    def prepare(self) -> None:
        """Makes the folders and checks that they can be used.

        Raises:
            StackError: not writable, not its owner's, or less than `SPACE_NEEDED` is free.
        """
        try:
            # Root's PostgreSQL is another user, who must be able to pass through. A folder that
            # was there keeps its mode: it may be more than our home.
            mode = 0o711 if os.geteuid() == 0 else 0o700
            self.root.mkdir(mode=mode, parents=True, exist_ok=True)
            for folder in (self.logs, self.redis, self.objects):
                folder.mkdir(mode=0o700, exist_ok=True)
                # Also one that an earlier version left open to all.
                folder.chmod(0o700)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StackError(
                f"cannot write to {self.root} ({error.strerror}): "
                "set INFERSTACK_HOME to a folder that you may write to"
            ) from None
        free = shutil.disk_usage(self.root).free
        if free < SPACE_NEEDED:
            raise StackError(
                f"only {free // 2**20} MB are free for {self.root}, {SPACE_NEEDED // 2**20} MB are "
                "needed: free some, or set INFERSTACK_HOME to a folder on another disk"
            )

    def lock(self) -> bool:
        """Takes the lock that a supervisor holds while it lives; False if another one has it.

        The kernel drops it with the process, so a killed supervisor leaves nothing behind.
        """
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def unlock(self) -> None:
        """Gives the lock back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def identity(self) -> Identity | None:
        """What was chosen before; None in a home that never ran."""
        try:
            return msgspec.json.decode(self._identity_file.read_bytes(), type=Identity)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StackError(
                f"cannot read {self._identity_file} ({error}): restore it, or set INFERSTACK_HOME "
                "to a new folder"
            ) from None

    def mark(self, identity: Identity) -> str:
        """What the processes of this home carry; another one than those of a copy of it."""
        return f"{identity.stack_id}:{folder_id(self.root)}"

    def choose(self, *, redis: bool, postgres: bool) -> Identity:
        """Makes secrets and ports, or finds them again.

        A remembered port that something else has taken is replaced, since nobody but the
        stack's own processes knows it.

        Args:
            redis: whether a port for Redis is needed.
            postgres: whether a port for PostgreSQL is needed.
        """
        chosen = self.identity() or _new_identity()
        if redis:
            chosen.redis_port = free_port(chosen.redis_port)
        if postgres:
            chosen.postgres_port = free_port(chosen.postgres_port)
        self._write(chosen)
        return chosen

    def adopt(self, *, secret_key: str, admin_password: str) -> None:
        """Goes on with the secrets of another home that users know; the rest stays its own."""
        chosen = self.identity() or _new_identity()
        chosen.secret_key, chosen.admin_password = secret_key, admin_password
        self._write(chosen)

    def keep_outside(self, data: Path | None) -> None:
        """Remembers where PostgreSQL's data is outside of this home; None if there is none."""
        if chosen := self.identity():
            chosen.postgres_data = str(data or "")
            chosen.postgres_home = str(self.root)
            self._write(chosen)

    def _write(self, identity: Identity) -> None:
        write_private(self._identity_file, msgspec.json.format(msgspec.json.encode(identity)))


def _new_identity() -> Identity:
    return Identity(
        stack_id=secrets.token_hex(16),
        redis_password=secrets.token_urlsafe(24),
        postgres_password=secrets.token_urlsafe(24),
        secret_key=secrets.token_urlsafe(48),
        admin_password=secrets.token_urlsafe(12),
        postgres_data="",
    )


def folder_id(folder: Path) -> str:
    """Tells a folder from its copies, also once it is renamed; holds while the machine runs."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def write_private(path: Path, body: bytes) -> None:
    """Replaces a file in one step; only its owner may read it, at every moment."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def port_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        # Connections that only wait to be forgotten do not keep a port.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, port))
        except OSError:
            return False
    return True


def free_port(wanted: int | None) -> int:
    """The wanted port of the loopback address if it is free, else any free one."""
    if wanted is not None and port_free("127.0.0.1", wanted):
        return wanted
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
