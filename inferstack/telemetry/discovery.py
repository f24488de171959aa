"""How Prometheus finds the processes of one home: a file for each, in the format of `file_sd`.

A port that is free cannot be known beforehand, and Ray starts and ends replicas as it likes. So
each process says itself where it is scraped. Files that killed processes left are swept.
"""

import contextlib
import json
import os
import socket
from pathlib import Path

FOLDER = "metrics"
PATIENCE = 2.0
"""Seconds that a port may take to answer before it counts as there."""


def folder(home: Path) -> Path:
    """Where the files of a home are."""
    return home / FOLDER


def announce(home: Path, service: str, host: str, port: int) -> Path | None:
    """Writes the file of this process; None if there is no such home to write it into.

    Args:
        home: INFERSTACK_HOME.
        service: such as `replica`.
        host: where it is scraped.
        port: likewise.
    """
    if not home.is_dir():
        return None
    place = folder(home)
    place.mkdir(mode=0o700, exist_ok=True)
    process = f"{service}-{os.getpid()}"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    entry = {"targets": [address], "labels": {"service": service, "process": process}}
    path = place / f"{process}.json"
    # Prometheus reads whenever it likes: it must not meet half a file.
    fresh = place / f".{process}"
    fresh.write_text(json.dumps([entry]))
    fresh.chmod(0o600)
    fresh.replace(path)
    return path


def withdraw(path: Path) -> None:
    """Removes the file of a process that ends."""
    path.unlink(missing_ok=True)


def sweep(home: Path) -> None:
    """Removes the files of processes that ended without removing their own."""
    for path in folder(home).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            (address,) = json.loads(path.read_bytes())[0]["targets"]
            host, _, port = address.rpartition(":")
            if _nobody_listens(host.strip("[]"), int(port)):
                withdraw(path)


def _nobody_listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False
