"""The embedded stack from outside: real processes, real Redis, real PostgreSQL."""

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from inferstack.client import Client
from inferstack.local import processes, state
from inferstack.local.control import running
from inferstack.local.home import port_free
from inferstack.local.state import ChildPhase, Phase
from inferstack.task import TaskState
from inferstack.telemetry import peers
from tests.local.stack import ROOT, RealStack, readable_folder
from tests.patience import until

INPUT = {"text": "Hello, world!"}
NOBODY = (65534, 65534)
AS_NOBODY = (
    "setpriv",
    *(f"--{which}={number}" for which, number in zip(("reuid", "regid"), NOBODY, strict=True)),
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


@pytest.fixture
def stack(folder: Path) -> Iterator[RealStack]:
    """In a fresh home; nothing runs."""
    found = RealStack(folder / "home")
    yield found
    found.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[RealStack]:
    with readable_folder() as folder:
        found = RealStack(folder / "home")
        yield found
        found.close()


@pytest.fixture
def started(shared: RealStack) -> RealStack:
    """In a home that tests share, and up; whoever ends it leaves that to the next one."""
    if running(shared.home) is None:
        shared.up()
    return shared


def begun(stack: RealStack, sleep_ms: int) -> str:
    """The id of a task that computes."""
    with stack.client() as client:
        task_id = client.submit({"sleep_ms": sleep_ms}, timeout=None).task_id
        until(lambda: client.get(task_id).status is TaskState.RUNNING)
    return task_id


def test_up_serves_and_refuses_a_second_one(started: RealStack) -> None:
    stack, first = started, started.current()
    until(lambda: "inferstack is up" in stack.output())
    assert {child.name for child in first.children} == {
        "redis",
        "postgres",
        "worker",
        "recorder",
        "api",
        "background",
    }
    answer = stack.command("infer", "--data", json.dumps(INPUT))
    assert json.loads(answer.stdout) == INPUT, answer.stderr

    load = ("--duration", "0.2", "--connections", "1", "--payload", json.dumps(INPUT))
    measured = stack.command("bench", "--json", *load)
    assert set(json.loads(measured.stdout)["statuses"]) == {"200"}, measured.stderr

    second = stack.command("up", "--no-ray")
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"pid {first.supervisor.pid}" in second.stderr
    assert first.url in second.stderr

    report = json.loads(stack.command("status", "--json").stdout)
    assert report["healthy"]
    assert [item["state"] for item in report["deployments"]] == ["ready"]


@pytest.mark.skipif(os.geteuid() != 0, reason="whoever runs the tests is a normal user")
def test_a_normal_user_has_a_stack_of_their_own(folder: Path) -> None:
    """Nobody's processes, who may read the interpreter of root wherever that lies."""
    os.chown(folder, *NOBODY)
    stack = RealStack(folder / "home", run=AS_NOBODY)
    try:
        stack.up()
        assert _served(stack) == INPUT
        programs = [psutil.Process(process.pid) for process in stack.left()]
        assert len(programs) > len(stack.current().children)
        assert {program.uids().effective for program in programs} == {NOBODY[0]}
        assert stack.command("down").returncode == 0
        assert stack.left() == []
    finally:
        stack.print_logs()
        stack.close()


def test_every_child_that_is_killed_comes_back_and_the_others_live_on(started: RealStack) -> None:
    stack = started
    for name in ("redis", "postgres", "recorder", "worker", "api", "background"):
        others = {n: stack.child(n).process for n in ("redis", "postgres", "api") if n != name}
        before = stack.child(name).process
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        after = stack.restarted(name, before)
        assert after.restarts == 1
        assert after.phase is ChildPhase.RUNNING
        assert _served(stack) == INPUT, name
        assert {n: stack.child(n).process for n in others} == others
        assert f"{name} (process {before.pid}) was killed by SIGKILL" in stack.output()
        assert after.process is not None
        assert f"{name} runs again as process {after.process.pid}" in stack.output()


def test_what_a_killed_supervisor_left_is_ended_by_the_next_up_which_keeps_all_data_or_by_down(
    started: RealStack,
) -> None:
    stack = started
    with stack.client() as client:
        task_id = client.infer(INPUT).task_id
    old = {child.name: child.process for child in map(stack.child, ("redis", "postgres", "api"))}
    stack.signal(signal.SIGKILL)
    assert all(process and processes.alive(process) for process in old.values())
    assert running(stack.home) is None

    first = stack.up().steps[0]
    assert first.name == "leftovers"
    assert "api" in first.text
    assert first.done
    assert stack.output().startswith("leftovers: ended what the last run left: redis, postgres")
    assert not any(process and processes.alive(process) for process in old.values())
    with stack.client() as client:
        task = client.get(task_id)
    assert task.status is TaskState.COMPLETED
    assert task.result == INPUT

    stack.signal(signal.SIGKILL)
    status = stack.command("status")
    assert status.returncode == 1
    assert "The supervisor is gone" in status.stdout
    for name in ("redis", "postgres", "worker", "recorder", "api", "inferstack down", "take"):
        assert name in status.stdout
    report = json.loads(stack.command("status", "--json").stdout)
    assert report["phase"] == "unsupervised"
    assert "api" in report["running"]
    down = stack.command("down")
    assert "supervisor is gone" in down.stderr
    assert "Stopped." in down.stdout
    assert stack.left() == []
    assert not _sockets(stack).exists()


def test_from_a_folder_without_a_stack_the_folder_is_named(stack: RealStack) -> None:
    for command in ("status", "down"):
        answer = stack.command(command).stdout
        assert answer.startswith(f"No stack has run in {stack.home.root}: change to the folder")
    refused = stack.command("keys", "list")
    assert refused.returncode == 1
    assert f"DATABASE_URL is not set. No stack has run in {stack.home.root}" in refused.stderr
    assert not stack.home.root.exists()


@pytest.mark.parametrize("step", ["redis", "migrate", "api"])
def test_ctrl_c_during_the_start_leaves_nothing_running(stack: RealStack, step: str) -> None:
    stack.begin()
    until(lambda: _has_begun(stack, step))
    assert stack.signal(signal.SIGINT) == 0
    assert "Traceback" not in stack.output()
    assert f"{step}: failed" in stack.output()
    assert stack.left() == []


def test_a_second_down_waits_for_the_drain_of_the_first_and_ctrl_c_ends_that(
    started: RealStack,
) -> None:
    stack = started
    task_id = begun(stack, 8_000)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(stack.command, "down")
        while stack.current().phase is not Phase.STOPPING:
            time.sleep(0.02)
        second = pool.submit(stack.command, "down")
        assert {first.result().returncode, second.result().returncode} == {0}
    assert stack.process is not None
    assert stack.process.wait(10) == 0
    assert stack.left() == []
    assert stack.command("status").returncode == 1
    nothing = stack.command("down")
    assert nothing.stdout == f"Nothing runs in {stack.home.root}. Start it with `inferstack up`.\n"
    assert not _sockets(stack).exists()
    stack.up()
    with stack.client() as client:
        task = client.wait(task_id)
    assert (task.status, task.attempts) == (TaskState.COMPLETED, 1)

    begun(stack, 20_000)
    with stack.begin_down() as down:
        until(lambda: any(step.name == "stop worker" for step in stack.current().stops))
        assert stack.current().stops[-1].text == "running batches end first, within 90 s"
        began = time.monotonic()
        down.send_signal(signal.SIGINT)
        answer, told = down.communicate(timeout=30)
    assert time.monotonic() - began < 10.0
    assert (down.returncode, answer) == (0, "Stopped.\n")
    assert "stop api: done" in told
    assert "redis: port" not in told
    assert stack.process is not None
    assert stack.process.wait(10) == 0
    assert stack.left() == []


def test_ctrl_c_is_answered_at_once_and_a_second_one_ends_what_runs(started: RealStack) -> None:
    stack = started
    assert stack.process is not None
    begun(stack, 40_000)
    os.kill(stack.process.pid, signal.SIGINT)
    until(lambda: "Ctrl-C again ends them now" in stack.output(), 2.0)
    began = time.monotonic()
    assert stack.signal(signal.SIGINT) == 0
    assert time.monotonic() - began < 15.0
    assert stack.left() == []


def test_what_is_chosen_holds_and_stays_among_those_it_concerns(stack: RealStack) -> None:
    """All of it in one stack, because each takes seconds to start."""
    password = "my very own password"
    arguments = ("--no-ray", "--detach", "--api-processes", "2", "--port", str(stack.port))
    chosen = {"ADMIN_PASSWORD": password, "AUTH_REQUIRED": "true", "BATCHSIZE": "1"}
    started = stack.command("up", *arguments, **chosen)
    assert started.returncode == 0, started.stderr
    assert "BATCHSIZE is no setting and changes nothing: BATCH_SIZE is one" in started.stderr
    assert "admin / the password in ADMIN_PASSWORD" in started.stdout
    assert password not in started.stdout + started.stderr
    assert stack.child("api-1").process != stack.child("api-2").process

    url = f"http://127.0.0.1:{stack.port}"
    assert httpx.get(f"{url}/api/inference", trust_env=False).status_code == 401
    login = {"username": "admin", "password": password}
    answer = httpx.post(f"{url}/api/auth/login", json=login, trust_env=False)
    with Client(url, token=answer.json()["access_token"]) as client:
        client.infer({"text": "x" * 200_000})
    readable = [path for path in stack.home.root.rglob("*") if _open_to_others(path, stack)]
    assert readable == []
    stack.command("down")
    assert stack.left() == []


def test_a_detached_stack_outlives_the_command_and_tells_which_models_failed(
    stack: RealStack, folder: Path
) -> None:
    models = folder / "models"
    shutil.copytree(ROOT / "models" / "echo", models / "echo")
    (models / "bad" / "1").mkdir(parents=True)
    (models / "bad" / "1" / "config.yaml").write_text("engine: '[/x]'\n")
    shutil.copytree(ROOT / "models" / "echo" / "1", models / "late" / "1")
    (models / "late" / "1" / "model.py").write_text("raise RuntimeError('no such weights')\n")
    arguments = ("up", "--no-ray", "--detach", "--port", str(stack.port))
    started = stack.command(*arguments, MODEL_PATH=str(models), MODEL_LIST="echo,bad,late")
    assert started.returncode == 0, started.stderr
    assert f"http://127.0.0.1:{stack.port}" in started.stdout
    found = running(stack.home)
    assert found is not None
    identity = stack.home.identity()
    assert identity is not None
    assert identity.admin_password in started.stdout
    assert identity.admin_password not in _supervisor_log(stack)

    lines = started.stdout.splitlines()
    assert any(line.startswith("bad:1 failed: config.yaml line 1: engine") for line in lines)
    assert any("echo is served" in line for line in lines)
    late = "late:1 failed: RuntimeError: no such weights"
    until(lambda: late in started.stdout + _supervisor_log(stack))
    assert "config.yaml line 1: engine" in stack.command("models").stdout

    os.kill((stack.child("recorder").process or found.supervisor).pid, signal.SIGKILL)
    until(lambda: "recorder runs again" in _supervisor_log(stack))
    assert _served(stack) == INPUT
    assert "Stopped." in stack.command("down").stdout
    assert running(stack.home) is None


def test_a_port_in_use_is_one_line_and_leaves_nothing_running(stack: RealStack) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.port))
        other.listen()
        refused = stack.command("up", "--no-ray", "--port", str(stack.port))
    _one_line(refused.returncode, refused.stderr, f"port {stack.port} on 127.0.0.1 is in use")
    assert stack.left() == []


def test_a_service_that_does_not_answer_is_one_line(stack: RealStack) -> None:
    url = f"redis://127.0.0.1:{stack.port}/0"
    refused = stack.command("up", "--no-ray", REDIS_URL=url)
    _one_line(refused.returncode, refused.stderr, "REDIS_URL: nothing answers")
    assert stack.left() == []


@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_models_that_are_missing_are_one_line_at_once_and_leave_no_home(
    stack: RealStack, folder: Path, how: tuple[str, ...]
) -> None:
    arguments = ("up", "--no-ray", "--port", str(stack.port), *how)
    refused = stack.command(*arguments, MODEL_PATH=str(folder / "none"))
    _one_line(refused.returncode, refused.stderr, f"MODEL_PATH={folder / 'none'}: No such file")
    (folder / "models" / "other" / "1").mkdir(parents=True)
    refused = stack.command(*arguments, MODEL_PATH=str(folder / "models"), MODEL_LIST="")
    text = f"there is no model echo in MODEL_PATH={folder / 'models'}, which holds other"
    _one_line(refused.returncode, refused.stderr, text)
    assert not stack.home.root.exists()
    assert port_free("127.0.0.1", stack.port)


@pytest.mark.parametrize("how", [(), ("--detach",)])
def test_a_default_model_outside_the_list_is_one_line_at_once(
    stack: RealStack, how: tuple[str, ...]
) -> None:
    arguments = ("up", "--no-ray", "--port", str(stack.port), *how)
    refused = stack.command(*arguments, MODEL_LIST="echo,other", DEFAULT_MODEL="minilm")
    _one_line(refused.returncode, refused.stderr, "DEFAULT_MODEL=minilm is not in MODEL_LIST=echo")
    assert stack.left() == []


def test_a_setting_that_is_nonsense_is_named(stack: RealStack) -> None:
    refused = stack.command("up", BATCH_SIZE="many")
    assert refused.returncode == 1
    assert "BATCH_SIZE='many'" in refused.stderr


def _supervisor_log(stack: RealStack) -> str:
    return (stack.home.logs / "supervisor.log").read_text()


def _has_begun(stack: RealStack, step: str) -> bool:
    found = state.read(stack.home.state_file)
    return found is not None and any(item.name == step for item in found.steps)


def _sockets(stack: RealStack) -> Path:
    return peers._folder(stack.home.root)


def _open_to_others(path: Path, stack: RealStack) -> bool:
    """Whether another user may read a file, or look into a folder, that they can get at."""
    between = [path, *path.relative_to(stack.home.root).parents][:-1]
    above = [stack.home.root / part for part in between[1:]]
    reached = all(folder.stat().st_mode & 0o001 for folder in above)
    return reached and not path.is_symlink() and bool(path.stat().st_mode & 0o004)


def _one_line(code: int, stderr: str, text: str) -> None:
    assert code == 1
    lines = stderr.splitlines()
    assert text in lines[-1]
    assert not any("Traceback" in line for line in lines)


def _served(stack: RealStack) -> object:
    """The result of a request that is repeated until the restarted child takes it."""
    until = time.monotonic() + 60.0
    last = ""
    while time.monotonic() < until:
        try:
            answer = httpx.post(
                f"http://127.0.0.1:{stack.port}/api/inference",
                verify=False,
                json={"data": INPUT, "timeout": 30},
                headers={"Prefer": "wait=30"},
                timeout=40.0,
            )
        except httpx.HTTPError as error:
            last = repr(error)
        else:
            last = answer.text
            if answer.status_code == 200:
                return answer.json()["result"]
        time.sleep(0.1)
    raise AssertionError(f"nothing served: {last}")
