"""Where PostgreSQL's data is and who runs it: it refuses to be root."""

import hashlib
import os
import pwd
import shutil
from pathlib import Path

import msgspec

from inferstack.errors import StackError
from inferstack.local.binaries import PostgresBinaries
from inferstack.local.home import Home, Identity
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


def data_of(home: Home) -> Path:
    """Where the data of a home is, or would be inside of it; never that of another home.

    Raises:
        StackError: it belongs to another user.
    """
    inside = _inside(home)
    if os.geteuid() != 0:
        _check_owner(inside)
        return inside
    identity = home.identity()
    if identity is None or inside.exists():
        return inside
    if identity.postgres_data is None:
        # Earlier versions named the folder after the home's path, and wrote that down nowhere.
        earlier = _outside(str(home.root.resolve()))
        return earlier if earlier.exists() else inside
    if identity.postgres_data and _original(home, identity) is None:
        return Path(identity.postgres_data)
    return inside


def locate(home: Home, identity: Identity) -> Place:
    """Finds the data of a home, or a place for it.

    Data that exists decides; without any, root's PostgreSQL goes into the home if its user
    can get there, else to a folder of its own below `SHARED`.

    Raises:
        StackError: the data is gone or belongs to another user or home, or there is no user to
            run as.
    """
    data = data_of(home)
    if identity.postgres_data and not _inside(home).exists():
        _check_outside(home, identity, Path(identity.postgres_data))
    if os.geteuid() != 0:
        return Place(data, None)
    if data.exists():
        return _with_note(home.root, data, _account(data.stat().st_uid))
    account = system_account()
    if not _reachable(data, account) and data == _inside(home):
        data = _outside(home.mark(identity))
    return _with_note(home.root, data, account)


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


def _inside(home: Home) -> Path:
    return home.root / "postgres" / "data"


def _outside(name: str) -> Path:
    return SHARED / hashlib.sha256(name.encode()).hexdigest()[:12] / "postgres" / "data"


def _original(home: Home, identity: Identity) -> Path | None:
    """The home of which this one is a copy, as long as it is where it was; None if it is none."""
    known = Home(Path(identity.postgres_home))
    if not known.root.exists() or known.root.samefile(home.root):
        return None
    other = known.identity()
    return known.root if other is not None and other.stack_id == identity.stack_id else None


def _check_outside(home: Home, identity: Identity, data: Path) -> None:
    """A copy of a home must not use the data of its original, nor begin without any."""
    if os.geteuid() != 0:
        _check_owner(data)
    if original := _original(home, identity):
        raise StackError(
            f"{home.root} is a copy of {original}, whose PostgreSQL data is in {data}: "
            "restore a backup into a new home instead"
        )
    if not data.parent.exists():
        raise StackError(
            f"the PostgreSQL data of {home.root} was in {data}, which is gone: put it back, "
            "or set INFERSTACK_HOME to a new folder"
        )


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
