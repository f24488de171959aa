"""One child process, kept alive until it is told to stop.

Children are not tied to the supervisor's life (no PR_SET_PDEATHSIG): they are durable by
themselves, so a supervisor killed by mistake or for memory should not take running work and a
database down with it, all at once and in no order. The next `up` ends them in order instead.
"""

import asyncio
import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from inferstack.errors import StackError
from inferstack.local import logs, processes
from inferstack.local.program import Program, run_as
from inferstack.local.state import ChildPhase, ChildState

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
SETTLED = 60.0
"""Seconds a child must live for its earlier deaths to be forgotten."""


class Child:
    """Starts a program, starts it again when it dies, and stops it."""

    def __init__(self, program: Program, log: Path, changed: Callable[[], None]) -> None:
        """Starts nothing yet.

        Args:
            program: what to run.
            log: where its output is appended.
            changed: called after each change of `state`.
        """
        self.program = program
        self.log = log
        self.state = ChildState(name=program.name, port=program.port, stop=program.stop)
        self._changed = changed
        self._stop = asyncio.Event()
        self._died = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._pid: int | None = None
        """Of the latest process, also once it has ended."""
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts it and keeps it alive."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def ready(self) -> None:
        """Waits until the program is ready.

        Raises:
            StackError: it ended first, or took longer than it may.
        """
        until = time.monotonic() + self.program.ready_within
        while self.state.process is None or not await self.program.ready():
            if self._died.is_set() or (self._keeper and self._keeper.done()):
                raise StackError(f"{self.program.name} {self.state.note}")
            if time.monotonic() > until:
                raise StackError(
                    f"{self.program.name} is not ready after {self.program.ready_within:.0f} s: "
                    f"see {self.log}"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._died.wait(), 0.1)
        self._change(ChildPhase.RUNNING)

    async def run_once(self) -> int:
        """Runs it to its end, without starting it again; returns its exit status.

        Cancelled, it kills the program first.
        """
        return await self._run()

    async def stop(self) -> None:
        """Asks it to end, waits, and kills it if it does not."""
        self._stop.set()
        if self._keeper is None:
            return
        for number, grace in (*self.program.stop, (signal.SIGKILL, 10.0)):
            self._signal(number)
            done, _ = await asyncio.wait({self._keeper}, timeout=grace)
            if done:
                break
        self._change(ChildPhase.STOPPED)

    def kill(self) -> None:
        """Kills it and its group at once; `stop` then has nothing to wait for."""
        self._stop.set()
        self._signal(signal.SIGKILL)

    async def _keep(self) -> None:
        delay = FIRST_DELAY
        while not self._stop.is_set():
            began = time.monotonic()
            code = await self._run()
            if self._stop.is_set():
                return
            if time.monotonic() - began > SETTLED:
                delay = FIRST_DELAY
            self.state.note = f"{_ending(code)}: {logs.last_line(self.log)} (see {self.log})"
            if self.state.phase is not ChildPhase.STARTING:  # else `ready` raises this
                text = "%s (process %s) %s; it starts again in %.1f s"
                log.warning(text, self.program.name, self._pid, self.state.note, delay)
            self.state.process = None
            self._change(ChildPhase.WAITING)
            self._died.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay)
            delay = min(LONGEST_DELAY, 2 * delay)
            self.state.restarts += 1

    async def _run(self) -> int:
        """Runs it once, to its end, and returns its exit status."""
        try:
            process = await self._spawn()
        # RuntimeError: the system starts no thread just now.
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or error
            # No log either, perhaps: it is tried again all the same.
            with contextlib.suppress(OSError), self.log.open("a") as output:
                output.write(f"cannot run {self.program.command[0]}: {why}\n")
            return 127
        self._process = process
        self._pid = process.pid
        self.state.process = processes.identify(process.pid)
        if self.state.restarts:
            log.info("%s runs again as process %d", self.program.name, process.pid)
        # A restarted child counts as running: only the first start waits for readiness.
        self._change(ChildPhase.RUNNING if self._died.is_set() else ChildPhase.STARTING)
        if self._stop.is_set():
            process.terminate()
        try:
            return await process.wait()
        finally:
            self._process = None
            processes.kill_group(process.pid)

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # somebody may remove it
        with self.log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *self.program.command,
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Its own session: the terminal's Ctrl-C reaches the supervisor alone.
                start_new_session=True,
                **run_as(self.program.account),
            )

    def _signal(self, number: int) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if number == signal.SIGKILL:
            processes.kill_group(process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)

    def _change(self, phase: ChildPhase) -> None:
        self.state.phase = phase
        self._changed()


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"
