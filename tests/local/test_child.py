import asyncio
import shutil
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from inferstack.errors import StackError
from inferstack.local import child as module
from inferstack.local.child import Child
from inferstack.local.processes import StopStep, alive, identify
from inferstack.local.program import Program
from inferstack.local.state import ChildPhase


def program(code: str, ready: Path, stop: tuple[StopStep, ...] = ((15, 5.0),)) -> Program:
    async def is_ready() -> bool:
        return ready.exists()

    return Program(
        name="child",
        command=(sys.executable, "-c", code),
        environment={},
        ready=is_ready,
        ready_within=10.0,
        stop=stop,
    )


def sleeper(ready: Path) -> str:
    return f"import pathlib, time; pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"


async def until(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def test_a_child_runs_until_it_is_stopped(tmp_path: Path) -> None:
    child = Child(program(sleeper(tmp_path / "ready"), tmp_path / "ready"), tmp_path / "log", _no)
    child.start()
    await child.ready()
    process = child.state.process
    assert process is not None
    phases = [child.state.phase]
    await child.stop()
    assert [*phases, child.state.phase] == [ChildPhase.RUNNING, ChildPhase.STOPPED]
    assert not alive(process)


async def test_a_child_that_dies_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.05)
    child = Child(program(sleeper(tmp_path / "ready"), tmp_path / "ready"), tmp_path / "log", _no)
    child.start()
    await child.ready()
    first = child.state.process
    assert first is not None
    child._signal(signal.SIGKILL)
    await until(lambda: child.state.restarts == 1 and child.state.process not in (None, first))
    assert "SIGKILL" in (child.state.note or "")
    await child.stop()


async def test_delays_grow_while_a_child_keeps_dying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.1)
    ends: list[float] = []

    def changed() -> None:
        if child.state.phase is ChildPhase.WAITING:
            ends.append(time.monotonic())

    child = Child(program("raise SystemExit(3)", tmp_path / "no"), tmp_path / "log", changed)
    child.start()
    await until(lambda: len(ends) == 4)
    await child.stop()
    gaps = [later - earlier for earlier, later in pairwise(ends)]
    assert gaps[0] >= 0.1
    assert gaps[1] >= 0.2
    assert gaps[2] >= 0.4


async def test_a_child_that_has_died_thousands_of_times_is_still_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.0)
    child = Child(program("", tmp_path / "no"), tmp_path / "log", _no)

    async def dies() -> int:
        await asyncio.sleep(0)
        return 1

    # A process for each death would take minutes.
    monkeypatch.setattr(child, "_run", dies)
    child.start()
    await until(lambda: child.state.restarts > 2000)
    await child.stop()
    assert child.state.phase is ChildPhase.STOPPED


async def test_a_child_that_ends_before_it_is_ready_tells_its_last_line(tmp_path: Path) -> None:
    code = "import sys; print('the reason', file=sys.stderr); sys.exit(3)"
    child = Child(program(code, tmp_path / "no"), tmp_path / "log", _no)
    child.start()
    with pytest.raises(StackError, match="child ended with status 3: the reason"):
        await child.ready()
    await child.stop()


async def test_a_program_that_cannot_run_is_named(tmp_path: Path) -> None:
    missing = Program(name="child", command=("/no/such",), environment={}, ready=_never)
    child = Child(missing, tmp_path / "log", _no)
    child.start()
    with pytest.raises(StackError, match="cannot run /no/such"):
        await child.ready()
    await child.stop()


async def test_why_it_ended_before_stays_in_the_log_of_a_program_that_cannot_run(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_text("the reason\n")
    missing = Program(name="child", command=("/no/such",), environment={}, ready=_never)
    assert await Child(missing, log, _no).run_once() == 127
    assert log.read_text() == "the reason\ncannot run /no/such: No such file or directory\n"


async def test_a_child_is_started_again_when_the_folder_of_its_log_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.05)
    log = tmp_path / "logs" / "log"
    child = Child(program(sleeper(tmp_path / "ready"), tmp_path / "ready"), log, _no)
    child.start()
    await child.ready()
    first = child.state.process
    shutil.rmtree(log.parent)
    child._signal(signal.SIGKILL)
    await until(lambda: child.state.process not in (None, first))
    assert log.exists()
    await child.stop()


async def test_a_child_without_a_log_is_tried_again_until_it_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.0)
    folder = tmp_path / "logs"
    folder.touch()
    child = Child(program(sleeper(tmp_path / "ready"), tmp_path / "ready"), folder / "log", _no)
    child.start()
    await until(lambda: child.state.restarts > 2)
    assert child.state.process is None
    folder.unlink()
    await until(lambda: child.state.process is not None)
    assert (folder / "log").exists()
    await child.stop()


async def test_a_child_for_which_there_is_no_thread_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.0)
    start = asyncio.create_subprocess_exec
    errors = [RuntimeError("can't start new thread")]

    async def starts(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        if errors:
            raise errors.pop()
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
    child = Child(program(sleeper(tmp_path / "ready"), tmp_path / "ready"), tmp_path / "log", _no)
    child.start()
    await until(lambda: child.state.process is not None)
    assert "ended with status 127" in (child.state.note or "")
    assert f"cannot run {sys.executable}: can't start new thread" in (child.state.note or "")
    await child.stop()


async def test_a_child_that_ignores_the_request_is_killed_with_its_children(
    tmp_path: Path,
) -> None:
    ready, grandchild = tmp_path / "ready", tmp_path / "grandchild"
    code = (
        "import pathlib, signal, subprocess, sys, time\n"
        "signal.signal(15, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(grandchild)!r}).write_text(str(p.pid))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    child = Child(program(code, ready, stop=((15, 0.2),)), tmp_path / "log", _no)
    child.start()
    await child.ready()
    below = identify(int(grandchild.read_text()))
    assert below is not None
    await child.stop()
    await until(lambda: not alive(below))


async def _never() -> bool:
    return False


def _no() -> None: ...
