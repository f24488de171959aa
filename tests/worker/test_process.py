"""One replica as a plain process."""

import os
import subprocess
import sys

import pytest

THREADLESS = """
import sys, threading
threading.stack_size(1 << 47)  # More than there are addresses: no thread starts.
from inferstack.worker import process
sys.exit(process.main())
"""


@pytest.mark.parametrize("reachable", [True, False])
def test_a_replica_that_cannot_serve_says_why_in_one_line(
    clean_redis_url: str, reachable: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADLESS, "--model", "echo", "--version", "1"],
        env=os.environ | {"REDIS_URL": clean_redis_url if reachable else "", "LOG_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "echo:1: can't start new thread: raise the limit"
        if reachable
        else "echo:1: REDIS_URL is not set"
    )
