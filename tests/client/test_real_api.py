"""Both clients against the real API, with real Redis, PostgreSQL and a replica of `echo`."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from inferstack.client import (
    AsyncClient,
    Client,
    Problem,
    Receipt,
    Retries,
    Submission,
    TaskNotCompletedError,
    UnreachableError,
)
from inferstack.task import TaskState
from tests.services import free_port

ROOT = Path(__file__).parents[2]
ECHO = {"model": "echo"}
SECRET = "0123456789abcdef0123456789abcdef"
PASSWORD = "correct horse battery staple"


def _start(environment: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *command], env=environment, cwd=ROOT)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@pytest.fixture(scope="module")
def api_url(
    redis_url: str, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """URL of a running API with one replica of `echo`."""
    port = free_port()
    settings = {
        "REDIS_URL": redis_url,
        "DATABASE_URL": postgres_url,
        "INFERSTACK_HOME": str(tmp_path_factory.mktemp("home")),
        "MODEL_PATH": str(ROOT / "models"),
        "MODEL_LIST": "echo",
        "PORT": str(port),
        "SECRET_KEY": SECRET,
        "ADMIN_PASSWORD": PASSWORD,
    }
    environment = dict(os.environ) | settings
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as processes:
        for command in (("inferstack.api",), ("inferstack.recorder",), ("inferstack.worker.pool",)):
            processes.callback(_stop, _start(environment, *command))
        _until_ready(url)
        yield url


def _until_ready(url: str) -> None:
    limit = time.monotonic() + 60
    with Client(url, retries=Retries(attempts=1)) as client:
        while time.monotonic() < limit:
            try:
                states = {m.model: m.state for m in client.models()}
            except (Problem, UnreachableError):
                states = {}
            if states.get("echo") == "ready":
                return
            time.sleep(0.1)
    pytest.fail(f"no model is ready at {url}")


@pytest.fixture
def client(make: Callable[..., Any], api_url: str) -> Any:
    """A client of either kind, of the real API."""
    return make(url=api_url)


def test_infer_returns_what_the_model_made(client: Any) -> None:
    task = client.infer({"text": "hello"}, metadata={"n": 1}, **ECHO)
    assert task.result == {"text": "hello"}
    assert task.metadata == {"n": 1}
    assert task.attempts == 1
    assert task.started_at >= task.created_at


def test_submit_then_wait_then_get(client: Any) -> None:
    receipt = client.submit({"sleep_ms": 100}, priority="high", **ECHO)
    assert isinstance(receipt, Receipt)
    assert client.wait(receipt.task_id, timeout=30).status is TaskState.COMPLETED
    assert client.get(receipt.task_id).result == {"sleep_ms": 100}


def test_the_same_key_names_the_same_task(client: Any) -> None:
    key = f"key-{time.time_ns()}"
    first = client.submit({"n": 1}, idempotency_key=key, **ECHO)
    assert client.submit({"n": 1}, idempotency_key=key, **ECHO).task_id == first.task_id
    assert client.infer({"n": 1}, idempotency_key=key, **ECHO).task_id == first.task_id
    with pytest.raises(Problem) as caught:
        client.submit({"n": 2}, idempotency_key=key, **ECHO)
    assert (caught.value.status, caught.value.kind) == (422, "idempotency-mismatch")


def test_a_cancelled_task_is_told_as_such(client: Any) -> None:
    receipt = client.submit({"sleep_ms": 2000}, **ECHO)
    assert client.cancel(receipt.task_id).status is TaskState.CANCELLED
    assert client.wait(receipt.task_id, timeout=10).status is TaskState.CANCELLED


def test_a_task_that_expires_is_an_error_of_infer(client: Any) -> None:
    client.submit({"sleep_ms": 1500}, **ECHO)
    with pytest.raises(TaskNotCompletedError) as caught:
        client.infer({"sleep_ms": 3000}, timeout=1.0, **ECHO)
    assert caught.value.task.status is TaskState.EXPIRED


def test_a_batch_keeps_its_order(client: Any) -> None:
    items = [Submission({"n": 0}, "echo"), Submission({"n": 1}, "nothing"), Submission({}, "echo")]
    first, second, third = client.batch(items)
    assert isinstance(second, Problem)
    assert (second.status, second.kind) == (404, "model-not-found")
    assert client.wait(first.task_id, timeout=30).result == {"n": 0}
    assert client.wait(third.task_id, timeout=30).result == {}


def test_wrong_input_names_the_field(client: Any) -> None:
    with pytest.raises(Problem) as caught:
        client.infer({"sleep_ms": "long"}, **ECHO)
    assert caught.value.status == 422
    assert "sleep_ms" in str(caught.value.errors)


def test_history_pages_forwards(client: Any) -> None:
    done = {client.infer({"n": n}, **ECHO).task_id for n in range(3)}
    limit = time.monotonic() + 20
    found: set[str] = set()
    while not done <= found and time.monotonic() < limit:
        found, cursor = set(), None
        for _ in range(20):
            page = client.list(status="completed", model="echo", limit=2, cursor=cursor)
            found |= {task.task_id for task in page.tasks}
            cursor = page.next_cursor
            if cursor is None or done <= found:
                break
        time.sleep(0.05)
    assert done <= found


def test_login_gives_a_token_that_works(client: Any) -> None:
    with pytest.raises(Problem) as caught:
        client.login("admin", "wrong")
    assert caught.value.status == 401
    token = client.login("admin", PASSWORD)
    assert token.expires_in > 60
    assert client.infer({"n": 1}, **ECHO).result == {"n": 1}


async def test_many_callers_share_one_asynchronous_client(api_url: str) -> None:
    async with AsyncClient(api_url) as client:
        tasks = await asyncio.gather(*(client.infer({"n": n}, model="echo") for n in range(300)))
    assert [task.result for task in tasks] == [{"n": n} for n in range(300)]
