"""The embedded stack from outside: real processes, real Redis, real PostgreSQL."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inferstack.local import processes, state
from inferstack.local.control import running
from inferstack.local.home import port_free
from inferstack.local.state import ChildPhase
from inferstack.task import TaskState
from tests.local.stack import RealStack

INPUT = {"text": "Hello, world!"}


@pytest.fixture
def stack(folder: Path) -> Iterator[RealStack]:
    found = RealStack(folder / "home")
    yield found
    found.close()


def test_up_serves_refuses_a_second_one_and_ends_with_down(stack: RealStack) -> None:
    first = stack.up()
    assert {child.name for child in first.children} == {
        "redis",
        "postgres",
        "worker",
        "recorder",
        "api",
    }
    answer = stack.command("infer", "--data", json.dumps(INPUT))
    assert json.loads(answer.stdout) == INPUT, answer.stderr

    second = stack.command("up", "--no-ray")
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"pid {first.supervisor.pid}" in second.stderr
    assert first.url in second.stderr

    report = json.loads(stack.command("status", "--json").stdout)
    assert report["healthy"]
    assert [item["state"] for item in report["deployments"]] == ["ready"]

    down = stack.command("down")
    assert down.returncode == 0
    assert "Stopped." in down.stdout
    assert "inferstack is up" in stack.output()
    assert stack.process is not None
    assert stack.process.wait() == 0
    assert stack.left() == []
    assert stack.command("status").returncode == 1
    assert "Nothing runs here." in stack.command("down").stdout


def test_after_a_killed_supervisor_up_ends_the_old_children_and_keeps_all_data(
    stack: RealStack,
) -> None:
    stack.up()
    with stack.client() as client:
        task_id = client.infer(INPUT).task_id
    old = {child.name: child.process for child in map(stack.child, ("redis", "postgres", "api"))}
    stack.signal(signal.SIGKILL)
    assert all(process and processes.alive(process) for process in old.values())
    assert running(stack.home) is None

    notes = stack.up().notes
    assert any("api" in note for note in notes)
    assert not any(process and processes.alive(process) for process in old.values())
    with stack.client() as client:
        task = client.get(task_id)
    assert task.status is TaskState.COMPLETED
    assert task.result == INPUT
    assert stack.signal(signal.SIGINT) == 0
    assert stack.left() == []


def test_down_ends_what_a_killed_supervisor_left(stack: RealStack) -> None:
    stack.up()
    stack.signal(signal.SIGKILL)
    assert "Stopped." in stack.command("down").stdout
    assert stack.left() == []


def test_every_child_that_is_killed_comes_back_and_the_others_live_on(stack: RealStack) -> None:
    stack.up()
    for name in ("redis", "postgres", "recorder", "worker", "api"):
        others = {n: stack.child(n).process for n in ("redis", "postgres", "api") if n != name}
        before = stack.child(name).process
        assert before is not None
        os.kill(before.pid, signal.SIGKILL)
        after = stack.restarted(name, before)
        assert after.restarts == 1
        assert after.phase is ChildPhase.RUNNING
        assert _served(stack) == INPUT, name
        assert {n: stack.child(n).process for n in others} == others
    assert stack.signal(signal.SIGTERM) == 0
    assert stack.left() == []


@pytest.mark.parametrize("step", ["redis", "migrate", "api"])
def test_ctrl_c_during_the_start_leaves_nothing_running(stack: RealStack, step: str) -> None:
    stack.begin()
    until = time.monotonic() + 60.0
    while not _has_begun(stack, step):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert stack.signal(signal.SIGINT) == 0
    assert "Traceback" not in stack.output()
    assert stack.left() == []


def test_a_second_ctrl_c_does_not_wait_for_the_drain(stack: RealStack) -> None:
    stack.up()
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGINT)
    assert stack.signal(signal.SIGINT) == 0
    assert stack.left() == []


def test_a_detached_stack_outlives_the_command(stack: RealStack) -> None:
    started = stack.command("up", "--no-ray", "--detach", "--port", str(stack.port))
    assert started.returncode == 0, started.stderr
    assert f"http://127.0.0.1:{stack.port}" in started.stdout
    found = running(stack.home)
    assert found is not None
    identity = stack.home.identity()
    assert identity is not None
    log = (stack.home.logs / "supervisor.log").read_text()
    assert identity.admin_password in started.stdout
    assert identity.admin_password not in log
    assert _served(stack) == INPUT
    assert "Stopped." in stack.command("down").stdout
    assert running(stack.home) is None


def test_several_api_processes_share_the_port(stack: RealStack) -> None:
    arguments = ("--detach", "--api-processes", "2", "--port", str(stack.port))
    started = stack.command("up", "--no-ray", *arguments)
    assert started.returncode == 0, started.stderr
    assert stack.child("api-1").process != stack.child("api-2").process
    assert _served(stack) == INPUT
    stack.command("down")
    assert stack.left() == []


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


def test_a_worker_that_cannot_start_is_one_line_and_leaves_nothing_running(
    stack: RealStack,
) -> None:
    refused = stack.command(
        "up", "--no-ray", "--port", str(stack.port), MODEL_PATH=str(stack.home.root / "none")
    )
    if refused.returncode == 0:
        pytest.fail("a stack without a model folder came up")
    assert "worker" in refused.stderr.splitlines()[-1]
    assert stack.left() == []
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


def _has_begun(stack: RealStack, step: str) -> bool:
    found = state.read(stack.home.state_file)
    return found is not None and any(item.name == step for item in found.steps)


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
