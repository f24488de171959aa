"""A stack that serves is backed up by the script, restored by the script, and serves again."""

import asyncio
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

from inferstack.backup.restore import restore as put_back
from inferstack.config import load
from inferstack.errors import StackError
from inferstack.local import control
from inferstack.storage.accounts import Accounts
from inferstack.storage.database import Database
from inferstack.task import TaskState
from tests.docs.pages import commands
from tests.local.stack import ROOT, RealStack

LARGE = {"text": "x" * 200_000}
PASSWORD = "a good password"
LONG = 600.0
"""A timeout in seconds that no machine is too slow for."""

MODEL = """
import time
from pathlib import Path

class Model:
    def predict(self, inputs):
        for data in inputs:
            if "fail" in data:
                raise ValueError(data["fail"])
            while "gate" in data and not Path(data["gate"]).exists():
                time.sleep(0.02)
        return inputs
"""


class GatedStack(RealStack):
    """A stack whose model `echo` waits until a file is there, if the input says so."""

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        models = self.home.root.parent / "models"
        return super()._environment({"MODEL_PATH": str(models), "PATH": path} | env)


@pytest.fixture
def place(folder: Path) -> Path:
    """A folder with the scripts and a model."""
    model = folder / "models" / "echo" / "1"
    model.mkdir(parents=True)
    (model / "model.py").write_text(MODEL)
    (model / "config.yaml").write_text("engine: python\nreplicas: 1\ndevice: cpu\ntimeout: 300\n")
    (folder / "scripts").symlink_to(ROOT / "scripts")
    return folder


@pytest.fixture
def old(place: Path) -> Iterator[GatedStack]:
    found = GatedStack(place / ".inferstack")
    yield found
    found.close()


@pytest.fixture
def new(place: Path) -> Iterator[GatedStack]:
    found = GatedStack(place / "restored")
    yield found
    found.close()


class Traffic:
    """Submits small tasks, one after the other, and notes what was accepted."""

    def __init__(self, stack: RealStack) -> None:
        self.accepted: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(stack,))

    def __enter__(self) -> "Traffic":
        self._thread.start()
        while len(self.accepted) < 5:
            assert self._thread.is_alive()
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, stack: RealStack) -> None:
        with stack.client() as client:
            while not self._stop.wait(0.02):
                number = len(self.accepted)
                receipt = client.submit({"n": number}, timeout=LONG)
                self.accepted[receipt.task_id] = number


def documented() -> list[str]:
    """What the documentation tells to type, but the start of the stack."""
    lines = [line for block in commands("docs/backup.md") for line in block.text.splitlines()]
    return [line for line in lines if not line.endswith("inferstack up")]


def typed(stack: GatedStack, line: str) -> subprocess.CompletedProcess[str]:
    """Runs a line as somebody types it in the folder of a stack."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=stack.home.root.parent,
        env=stack._environment({}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def account(stack: RealStack) -> str:
    """Makes the user alice; returns an API key of hers."""
    settings = control.known_settings(stack.home, load(inferstack_home=stack.home.root))

    async def make() -> str:
        database = Database.from_settings(settings)
        accounts = Accounts(database)
        await accounts.create_user("alice", PASSWORD, tenant="acme")
        _, key = await accounts.create_api_key("alice", "laptop")
        await database.close()
        return key

    return asyncio.run(make())


def login(stack: RealStack, username: str, password: str) -> dict[str, str]:
    """The headers of somebody who has just logged in."""
    url = f"http://127.0.0.1:{stack.port}/api/auth/login"
    answer = httpx.post(url, json={"username": username, "password": password}, timeout=30)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def listed(stack: RealStack, headers: dict[str, str]) -> set[str]:
    """The newest tasks that somebody sees."""
    url = f"http://127.0.0.1:{stack.port}/api/inference"
    answer = httpx.get(url, params={"limit": "200"}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return {task["task_id"] for task in answer.json()["tasks"]}


def end_now(stack: RealStack) -> None:
    """Ends it without waiting for what runs."""
    assert stack.process is not None
    os.kill(stack.process.pid, signal.SIGINT)
    until = time.monotonic() + 30.0
    while "Ctrl-C again" not in stack.output():
        assert time.monotonic() < until
        time.sleep(0.01)
    stack.signal(signal.SIGINT)


@pytest.mark.timeout(300)
def test_what_was_accepted_before_a_backup_is_there_after_its_restore(
    old: GatedStack, new: GatedStack, place: Path
) -> None:
    backup, check, restore = documented()
    gate = place / "gate"
    old.up()
    identity = old.home.identity()
    assert identity is not None
    key = account(old)
    token = login(old, "admin", identity.admin_password)
    with old.client() as client:
        ended = [client.infer(data, timeout=LONG) for data in ({"n": 1}, LARGE)]
        failed = client.submit({"fail": "on purpose"}, timeout=LONG).task_id
        assert client.wait(failed).status is TaskState.FAILED
        running = client.submit({"gate": str(gate)}, timeout=LONG).task_id
        while client.get(running).status is not TaskState.RUNNING:
            time.sleep(0.02)
        waiting = [client.submit({"n": n}, timeout=LONG).task_id for n in range(100)]
        large = client.submit(LARGE, timeout=None).task_id
        with Traffic(old) as traffic:
            before = dict(traffic.accepted)
            made = typed(old, backup)
            during = len(traffic.accepted) - len(before)
        assert client.get(running).status is TaskState.RUNNING
    assert made.returncode == 0, made.stderr
    assert made.stdout == "The backup is in backups/monday.\n"
    assert during > 0, "it served meanwhile"
    assert typed(old, check).returncode == 0
    end_now(old)

    done = typed(new, restore)
    assert done.returncode == 0, done.stderr
    assert re.match(r"Restored\. .*: \d+ unfinished tasks go on then", done.stdout)
    again = typed(new, restore)
    assert (again.returncode, again.stdout) == (1, "")
    assert "holds data" in again.stderr.splitlines()[-1]
    assert "Traceback" not in again.stderr
    gate.touch()
    new.up()
    wanted = load(inferstack_home=new.home.root)
    work = put_back(new.home, wanted, place / "backups" / "monday", print)
    with pytest.raises(StackError, match="inferstack runs already"):
        asyncio.run(work)
    with new.client() as client:
        for task in ended:
            kept = client.get(task.task_id)
            assert (kept.result, kept.completed_at) == (task.result, task.completed_at)
        wrong = client.get(failed)
        assert (wrong.status, wrong.attempts) == (TaskState.FAILED, 3)
        finished = client.wait(running)
        assert (finished.status, finished.attempts) == (TaskState.COMPLETED, 1)
        assert client.wait(large).result == LARGE
        for task_id, number in [*zip(waiting, range(100), strict=True), *_pairs(before)]:
            finished = client.wait(task_id)
            assert (finished.status, finished.result) == (TaskState.COMPLETED, {"n": number})
    url = f"http://127.0.0.1:{new.port}/api/inference"
    for task_id, number in _pairs(traffic.accepted):
        # What ran when the backup was made runs again only after its lease.
        answer = httpx.get(f"{url}/{task_id}", headers={"Prefer": "wait=60"}, timeout=90)
        found = answer.json()
        assert answer.status_code == 404 or found["result"] == {"n": number}, found
    assert large in listed(new, token)
    assert large in listed(new, login(new, "admin", identity.admin_password))
    assert listed(new, login(new, "alice", PASSWORD)) == set()
    assert listed(new, {"X-API-Key": key}) == set()
    assert new.signal(signal.SIGINT) == 0

    later = typed(new, "scripts/backup.sh backups/tuesday")
    assert later.returncode == 0, later.stderr
    assert new.left() == []
    manifest = json.loads((place / "backups" / "tuesday" / "manifest.json").read_text())
    assert manifest["files"] >= 3 + 2


def _pairs(accepted: dict[str, int]) -> list[tuple[str, int]]:
    return list(accepted.items())
