"""Where PostgreSQL's data is and who runs it: it refuses to be root."""

import hashlib
import os
import pwd
import shutil
from pathlib import Path

import msgspec

from inferstack.errors import StackError
from inferstack.local.binaries import PostgresBinaries
from inferstack.local.program import Account

SHARED = Path("/var/lib/inferstack")
"""Used by root only, when the home or the wheel lies where only root may go (such as /root)."""


class Place(msgspec.Struct, frozen=True):
    """Where the data is, and whose it is."""

    data: Path
    account: Account | None
    """None for the user of this process."""
    note: str | None = None
    """What to tell the user, when the data is not inside the home."""


def locate(home: Path) -> Place:
    """Finds the data of a home, or a place for it.

    Data that exists decides; without any, root's PostgreSQL goes into the home if its user
    can get there, else to a folder below `SHARED` that is named after the home's path.

    Raises:
        StackError: the data belongs to another user, or there is no user to run as.
    """
    inside = home / "postgres" / "data"
    if os.geteuid() != 0:
        _check_owner(inside)
        return Place(inside, None)
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    outside = SHARED / name / "postgres" / "data"
    for data in (inside, outside):
        if data.exists():
            return _with_note(home, data, _account(data.stat().st_uid))
    account = system_account()
    return _with_note(home, inside if _reachable(inside, account) else outside, account)


def make_parent(place: Place) -> None:
    """Makes the folder around the data and gives it to its user."""
    parent = place.data.parent
    parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if place.account is not None:
        os.chown(parent, place.account.uid, place.account.gid)
    parent.chmod(0o700)


def reachable_binaries(binaries: PostgresBinaries, account: Account | None) -> PostgresBinaries:
    """The same programs where the account can run them; a wheel's are copied if need be."""
    if account is None or not binaries.wheel or _reachable(binaries.server, account):
        return binaries
    target = SHARED / f"postgresql-{binaries.major}"
    if not target.exists():
        fresh = target.with_name(f".{target.name}.{os.getpid()}")
        fresh.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.copytree(binaries.folder.parent, fresh, symlinks=True)
        fresh.rename(target)
    return msgspec.structs.replace(binaries, folder=target / "bin")


def _with_note(home: Path, data: Path, account: Account) -> Place:
    if data.is_relative_to(home):
        if not _reachable(data, account):
            raise StackError(
                f"PostgreSQL runs as {account.name}, who cannot reach {data}: "
                f"allow passing through with `chmod o+x` on the folders above it"
            )
        return Place(data, account)
    note = (
        f"PostgreSQL runs as {account.name}, who cannot reach {home}: its data is in {data.parent}"
    )
    return Place(data, account, note)


def _check_owner(data: Path) -> None:
    """Data that root once made belongs to another user, and only root can start it."""
    folder = data.parent
    if folder.exists() and (owner := folder.stat().st_uid) != os.geteuid():
        raise StackError(
            f"{folder} belongs to another user ({_account(owner).name}): "
            "run as root as before, or set INFERSTACK_HOME to a new folder"
        )


def system_account() -> Account:
    """The user that PostgreSQL runs as where this process is root.

    Raises:
        StackError: there is none.
    """
    for name in ("postgres", "nobody"):
        try:
            return _account(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise StackError(
        "PostgreSQL refuses to run as root and there is no user `postgres` or `nobody`: "
        "run as another user, or set DATABASE_URL"
    )


def _account(uid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, uid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _reachable(path: Path, account: Account) -> bool:
    """Whether the account may pass through every existing folder above a path."""
    for folder in path.resolve().parents:
        if not folder.exists():
            continue
        mode = folder.stat()
        shift = 6 if mode.st_uid == account.uid else 3 if mode.st_gid == account.gid else 0
        if not (mode.st_mode >> shift) & 1:
            return False
    return True
