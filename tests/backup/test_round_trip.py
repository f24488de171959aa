"""A stack that serves is backed up by the script, restored by the script, and serves again."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inferstack.task import TaskState
from tests.local.stack import ROOT, RealStack

DOC = ROOT / "docs" / "backup.md"
LARGE = {"text": "x" * 200_000}


@pytest.fixture
def old(folder: Path) -> Iterator[RealStack]:
    found = RealStack(folder / ".inferstack")
    yield found
    found.close()


@pytest.fixture
def restored(folder: Path) -> Iterator[RealStack]:
    found = RealStack(folder / "restored")
    yield found
    found.close()


class Load:
    """Submits small tasks, one after the other, and notes what was accepted."""

    def __init__(self, stack: RealStack) -> None:
        self.accepted: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(stack,))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, stack: RealStack) -> None:
        with stack.client() as client:
            while not self._stop.wait(0.01):
                number = len(self.accepted)
                self.accepted[client.submit({"n": number}).task_id] = number


def commands() -> list[str]:
    """What the documentation tells to type, but the start of the stack."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOC.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.endswith("inferstack up")]


def typed(stack: RealStack, line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a line as somebody types it in the folder of a stack."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=stack._environment({"PATH": path}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert done.returncode == 1, done.stdout
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr


def end_now(stack: RealStack) -> None:
    """Ends it without waiting for what runs."""
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGINT)
    until = time.monotonic() + 10.0
    while "Ctrl-C again" not in stack.output():
        assert time.monotonic() < until
        time.sleep(0.01)
    stack.signal(signal.SIGINT)


def test_what_was_accepted_before_a_backup_is_there_after_its_restore(
    old: RealStack, restored: RealStack, folder: Path
) -> None:
    (folder / "scripts").symlink_to(ROOT / "scripts")
    backup, check, restore = commands()
    old.up()
    identity = old.home.identity()
    assert identity is not None
    admin = {"username": "admin", "password": identity.admin_password}
    added = old.command("users", "add", "alice", "--password", "a good password")
    assert added.returncode == 0, added.stderr
    key = old.command("keys", "add", "alice", "laptop").stdout.strip()
    url = f"http://127.0.0.1:{old.port}/api"
    token = httpx.post(f"{url}/auth/login", json=admin).json()["access_token"]
    with old.client() as client:
        small, large = client.infer({"n": 1}), client.infer(LARGE)
        failed = client.submit({"fail": "on purpose"}).task_id
        assert client.wait(failed).status is TaskState.FAILED
        running = client.submit({"sleep_ms": 12_000, "n": "running"}, timeout=40).task_id
        while client.get(running).status is not TaskState.RUNNING:
            time.sleep(0.02)
        waiting = [client.submit({"n": n}, timeout=40).task_id for n in range(50)]
        sized = client.submit(LARGE, timeout=None).task_id
    with Load(old) as load:
        while len(load.accepted) < 5:
            time.sleep(0.01)
        before = dict(load.accepted)
        made = typed(old, backup, folder)
        seen = len(load.accepted)
    assert made.returncode == 0, made.stderr
    assert "The backup is in backups/monday." in made.stdout
    assert seen > len(before), "it served meanwhile"
    assert typed(old, check, folder).returncode == 0
    refused(typed(old, backup, folder), "backups/monday exists already")
    assert list((folder / "backups").iterdir()) == [folder / "backups" / "monday"]
    with old.client() as client:
        assert client.get(running).status is TaskState.RUNNING
    end_now(old)

    done = typed(restored, restore, folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Restored\. \d+ tasks had not finished", done.stdout)
    refused(typed(restored, restore, folder), "holds data")
    restored.up()
    refused(typed(restored, restore, folder), "inferstack runs already")
    with restored.client() as client:
        for task in (small, large):
            again = client.get(task.task_id)
            assert (again.status, again.result) == (TaskState.COMPLETED, task.result)
            assert again.completed_at == task.completed_at
        wrong = client.get(failed)
        assert wrong.status is TaskState.FAILED
        assert wrong.error is not None
        assert "on purpose" in wrong.error.message
        ended = client.wait(running)
        assert (ended.status, ended.attempts) == (TaskState.COMPLETED, 1)
        for number, task_id in enumerate(waiting):
            again = client.wait(task_id)
            assert (again.status, again.result) == (TaskState.COMPLETED, {"n": number})
        assert client.wait(sized).result == LARGE
        for task_id, number in before.items():
            again = client.wait(task_id)
            assert (again.status, again.result) == (TaskState.COMPLETED, {"n": number})

    url = f"http://127.0.0.1:{restored.port}/api"
    for name, number in load.accepted.items():
        answer = httpx.get(f"{url}/inference/{name}", headers={"Prefer": "wait=20"})
        assert answer.status_code in (200, 404)
        if answer.status_code == 200:
            assert answer.json()["result"] == {"n": number}
    for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": key}):
        listed = httpx.get(f"{url}/inference", headers=headers)
        assert listed.status_code == 200, listed.text
    assert small.task_id in old_ids(url, token)
    for user in (admin, {"username": "alice", "password": "a good password"}):
        assert httpx.post(f"{url}/auth/login", json=user).status_code == 200
    assert restored.signal(signal.SIGINT) == 0

    later = typed(restored, "scripts/backup.sh backups/tuesday", folder)
    assert later.returncode == 0, later.stderr
    assert restored.left() == []
    manifest = json.loads((folder / "backups" / "tuesday" / "manifest.json").read_text())
    assert manifest["files"] > 3


def old_ids(url: str, token: str) -> set[str]:
    """Every task that the administrator sees."""
    found: set[str] = set()
    query: dict[str, str] = {"limit": "200"}
    while True:
        page = httpx.get(
            f"{url}/inference", params=query, headers={"Authorization": f"Bearer {token}"}
        ).json()
        found |= {task["task_id"] for task in page["tasks"]}
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
