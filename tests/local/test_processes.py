import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from inferstack.local import processes

SLEEP = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)",
]
PARENT = [
    sys.executable,
    "-c",
    f"import subprocess; subprocess.Popen({SLEEP}, env={{}}, start_new_session=True).wait()",
]
"""Its child has no environment, and speaks for both."""


def started(command: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, **(env or {})}
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with started(SLEEP) as process:
        yield process
        process.kill()


def test_a_process_is_known_until_it_ends(child: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None
    assert processes.alive(identity)
    child.kill()
    child.wait()
    assert not processes.alive(identity)


def test_a_zombie_does_not_live(child: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(identity)


def test_a_reused_process_id_is_never_signalled(child: subprocess.Popen[bytes]) -> None:
    identity = processes.identify(child.pid)
    assert identity is not None
    earlier = msgspec.structs.replace(identity, started="another boot/1")
    processes.end(earlier, ((signal.SIGKILL, 1.0),))
    processes.end_all([earlier], 1.0)
    assert child.poll() is None


def test_a_process_that_ignores_the_request_is_killed() -> None:
    with started(DEAF) as process:
        identity = processes.identify(process.pid)
        assert identity is not None
        processes.end(identity, ((signal.SIGTERM, 0.2),))
        assert process.wait() == -signal.SIGKILL


def test_processes_with_the_mark_are_found_and_no_others() -> None:
    with started(SLEEP, {processes.MARK: "mine"}) as mine, started(SLEEP) as other:
        try:
            assert [found.pid for found in processes.marked("mine")] == [mine.pid]
            processes.end_all(processes.marked("mine"), 5.0)
            assert mine.wait() == -signal.SIGTERM
            assert other.poll() is None
        finally:
            other.kill()


def test_a_descendant_of_a_marked_process_is_found_without_an_environment() -> None:
    """As one of Ray, which may write its title where its environment was."""
    with started(PARENT, {processes.MARK: "mine"}) as mine:
        (child,) = psutil.Process(mine.pid).children()
        found = processes.marked("mine")
        assert {process.pid for process in found} == {mine.pid, child.pid}
        processes.end_all(found, 5.0)
        assert not any(map(processes.alive, found))


def test_a_pid_file_that_names_something_else_is_not_believed(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    pid_file = tmp_path / "redis.pid"
    pid_file.write_text(f"{child.pid}\n")
    assert processes.server_at(pid_file, tmp_path, ("redis-server",)) is None
    pid_file.write_text("nonsense")
    assert processes.server_at(pid_file, tmp_path, ("redis-server",)) is None
