"""Makes the venv of the peers, and gets wrk where it may."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-bench"
LISTS = (ROOT / "benchmarks/requirements.txt", ROOT / "benchmarks/constraints.txt")


def peers_python() -> Path:
    """The interpreter of an up-to-date `.venv-bench`; makes or renews it if need be.

    Raises:
        subprocess.CalledProcessError: pip failed; it has said why.
    """
    python, stamp = PEERS / "bin/python", PEERS / ".installed"
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in LISTS)).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing the peers into {PEERS} ...", file=sys.stderr, flush=True)
    venv.create(PEERS, with_pip=True, clear=True)
    lists = ["-r", str(LISTS[0]), "-c", str(LISTS[1])]
    command = [str(python), "-m", "pip", "install", "-q", *lists]
    subprocess.run(command, check=True)
    stamp.write_text(wanted)
    return python


def wrk() -> str | None:
    """Path of wrk; installs Debian's package when this is root on Debian; None without it."""
    if (found := shutil.which("wrk")) or os.geteuid() != 0 or not shutil.which("apt-get"):
        return found
    subprocess.run(["apt-get", "install", "-qq", "-y", "wrk"], check=False, capture_output=True)
    return shutil.which("wrk")
