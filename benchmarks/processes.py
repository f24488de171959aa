"""Starts servers, waits until they answer, and ends them and their children by pid."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120.0
"""Seconds that a server gets until its first answer."""


class StartError(RuntimeError):
    """A server did not come up."""


def free_port() -> int:
    """A TCP port of the loopback interface that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process with everything it starts, in a session of its own."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], logs: Path
    ) -> None:
        """Starts it.

        Args:
            name: for messages and the log file.
            command: program and arguments.
            environment: variables on top of this process's own.
            logs: folder of the log file.
        """
        self.name = name
        self.log = logs / f"{name}.log"
        self._known: dict[int, psutil.Process] = {}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> "Server":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends it."""
        self.stop()

    def wait_for(self, url: str, body: bytes | None = None) -> bytes:
        """Repeats a request until it is answered with 200; returns the answer's body.

        Raises:
            StartError: the process ended first, or time ran out.
        """
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise StartError(f"{self.name} ended with {self.process.returncode}{self.tail()}")
            try:
                return ask(url, body)
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise StartError(f"{self.name} did not answer within {PATIENCE:g} s{self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace")[-2000:]
        return f"; {self.log} ends with:\n{text}"

    def stop(self, patience: float = 15.0) -> None:
        """SIGTERM to the process, then SIGKILL to whatever of its tree is still there."""
        tree = self._tree()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        _, left = psutil.wait_procs(tree, timeout=2.0)
        for process in left:
            if process.is_running():  # also compares start times: a reused pid is left alone
                process.kill()
        psutil.wait_procs(left, timeout=5.0)

    def _tree(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """One request: GET, or POST of JSON if there is a body; returns the answer's body.

    Raises:
        OSError: no connection, or a status that is not 2xx.
    """
    known = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=body, headers=known)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())
