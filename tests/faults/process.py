"""A process of inferstack that tests start, kill, and start again."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Process:
    """One of inferstack's processes."""

    def __init__(self, name: str, module: str, *arguments: str, code: str | None = None) -> None:
        """Args: code: to run in place of the module."""
        self.name = name
        self.env: dict[str, str] = {}
        self.starts = 0
        self.ends: list[int] = []
        """The exit statuses of those that ended and were started again."""
        self.wanted = True
        self.root = ROOT
        """Where its code is: the next start may be that of another version."""
        what = ["-m", module] if code is None else ["-c", code]
        self._command = [sys.executable, *what, *arguments]
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._running is not None
        return self._running.pid

    @property
    def dead(self) -> bool:
        """Whether it has to be started (again)."""
        return self._running is None or self._running.poll() is not None

    @property
    def stopped(self) -> bool:
        """Whether it is frozen, as by SIGSTOP."""
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def start(self, environment: Mapping[str, str], log: Path) -> None:
        """Starts it without waiting for anything."""
        self.starts += 1
        if self._running is not None:
            self.ends.append(self._running.wait())
        with log.open("ab") as output:
            self._running = subprocess.Popen(
                self._command,
                cwd=self.root,
                env={**environment, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Ends it, also when it is stopped."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                self._running.kill()
            self._running.wait()
