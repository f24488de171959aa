"""A real S3 server for tests: the folders of a folder are its buckets."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.programs import program
from tests.services import free_port

ACCESS, SECRET = "access", "a-long-enough-secret"


@contextmanager
def serve(folder: Path, *buckets: str) -> Iterator[str]:
    """Runs it until the block ends; yields its endpoint.

    Args:
        folder: for the buckets and the server's log.
        buckets: to make.
    """
    for bucket in buckets:
        (folder / bucket).mkdir()
    endpoint = f"http://127.0.0.1:{(port := free_port())}"
    command = [program("rclone"), "serve", "s3", "--auth-key", f"{ACCESS},{SECRET}"]
    command += ["--addr", f"127.0.0.1:{port}", "--config", str(folder / "none"), str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not _answers(endpoint):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)


def _answers(endpoint: str) -> bool:
    try:
        httpx.get(endpoint, timeout=1)
    except httpx.TransportError:
        return False
    return True
