"""A whole stack in a process of its own, as a user starts it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from inferstack.client import Client
from inferstack.local import control, processes, state
from inferstack.local.home import Home, free_port
from inferstack.local.processes import ProcessId
from inferstack.local.state import ChildState, Phase, StackState

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


@contextmanager
def readable_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach when root runs the tests; tmp_path is not."""
    path = Path(tempfile.mkdtemp(prefix="inferstack-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class RealStack:
    """`inferstack up` with plain processes and the model `echo` alone, which starts fast."""

    def __init__(self, root: Path, *, ray: bool = False, run: Sequence[str] = ()) -> None:
        """Touches nothing yet.

        Args:
            root: its home.
            ray: whether Ray hosts the replicas, which starts slowly.
            run: a command that runs the one behind it, such as `setpriv`.
        """
        self.ray = ray
        self._program = [*run, sys.executable, "-m", "inferstack.cli"]
        self.home = Home(root)
        self.log = root.with_name("up.log")
        self.port = free_port(None)
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[ProcessId] = set()

    def command(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs `inferstack ...` to its end."""
        return subprocess.run(
            [*self._program, *arguments],
            cwd=ROOT,
            env=self._environment(env),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def up(self) -> StackState:
        """Starts it in the foreground of another process, and waits until it is ready."""
        return self.wait_ready(self.begin())

    def begin(self) -> int:
        """Starts it in the foreground of another process; returns the supervisor's id."""
        port = ("--port", str(self.port))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._program, "up", *port, *([] if self.ray else ["--no-ray"])],
                cwd=ROOT,
                env=self._environment({}),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self.process.pid

    def begin_down(self) -> subprocess.Popen[str]:
        """Stops it as from a terminal, so that a signal is a Ctrl-C there."""
        return subprocess.Popen(
            [*self._program, "down"],
            cwd=ROOT,
            env=self._environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests that run in the background have it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait_ready(self, pid: int) -> StackState:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = state.read(self.home.state_file)
            if found and found.supervisor.pid == pid and found.phase is Phase.READY:
                self._remember(found)
                return found
            assert self.process is None or self.process.poll() is None, self.output()
            time.sleep(0.05)
        raise AssertionError("the stack did not become ready")

    def current(self) -> StackState:
        found = state.read(self.home.state_file)
        assert found is not None
        self._remember(found)
        return found

    def child(self, name: str) -> ChildState:
        return next(child for child in self.current().children if child.name == name)

    def restarted(self, name: str, before: ProcessId) -> ChildState:
        """Waits until a child runs as another process than before."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            child = self.child(name)
            if child.process not in (None, before):
                return child
            time.sleep(0.05)
        raise AssertionError(f"{name} was not started again")

    def signal(self, number: int) -> int:
        """Signals the supervisor and waits for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def output(self) -> str:
        """What the latest `up` has printed."""
        return self.log.read_text()

    def print_logs(self) -> None:
        """The ends of all logs, for pytest to show beside a failure."""
        print(self.output()[-2000:])
        for log in sorted(self.home.logs.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")

    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    def left(self) -> list[ProcessId]:
        """Processes of this stack that still live."""
        identity = self.home.identity()
        marked = processes.marked(self.home.mark(identity)) if identity else []
        return [*marked, *(process for process in self.seen if processes.alive(process))]

    def _remember(self, found: StackState) -> None:
        self.seen |= {child.process for child in found.children if child.process}

    def close(self) -> None:
        """Ends whatever a failed test left."""
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGTERM)
        if control.running(self.home) or control.left(self.home):
            self.command("down")

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in {"REDIS_URL", "DATABASE_URL", "PORT", "HOST"}
        }
        own = {
            "INFERSTACK_HOME": str(self.home.root),
            "MODEL_PATH": str(ROOT / "models"),
            "MODEL_LIST": "echo",
            "DEFAULT_MODEL": "echo",
        }
        return kept | own | env
