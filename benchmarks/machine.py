"""What the numbers were measured on."""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

from inferstack.local import binaries

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, Any]:
    """Processor, memory, versions, commit and time: enough to tell two results apart."""
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "redis": output(str(binaries.redis_server()), "--version"),
        "load_average": os.getloadavg(),
    }


def output(*command: str) -> str | None:
    """The first line a command prints, None if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return found.stdout.strip().splitlines()[0] if found.returncode == 0 and found.stdout else None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Foreign:
    """How much of the machine others used while something was measured."""

    def __init__(self) -> None:
        """Starts watching."""
        self._before = psutil.cpu_times()

    def steal_percent(self) -> float:
        """Percent of the processor that the hypervisor gave to others since the start."""
        now = psutil.cpu_times()
        total = sum(now) - sum(self._before)
        stolen = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return round(100 * stolen / total, 2) if total > 0 else 0.0
