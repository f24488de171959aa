"""inferstack as a user runs it: `inferstack up` in a home of its own, with everything on."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
from redis import Redis

from benchmarks import payloads
from benchmarks.client import Target
from benchmarks.processes import PATIENCE, ROOT, StartError, ask, free_port

EMBEDDED = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "S3_ENDPOINT", "RAY_ADDRESS")
WAIT = {"Prefer": "wait=60"}
MODELS = {"echo": "echo", "same": "minilm", "mixed": "minilm"}
SETTLE = 60.0


class Deployment:
    """A running stack: JWT required, AOF `always`, recorder writing to PostgreSQL."""

    def __init__(self, home: Path, port: int, extra: tuple[str, ...] = ()) -> None:
        """Starts nothing yet.

        Args:
            home: its INFERSTACK_HOME.
            port: of the API.
            extra: more options of `inferstack up`, such as `--no-ray`.
        """
        self.home = home
        self.log = home.with_name(f"{home.name}.log")
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._extra = extra
        self._token = ""
        self._environment = {
            **os.environ,
            **dict.fromkeys(EMBEDDED, ""),
            "INFERSTACK_HOME": str(home),
            "MODEL_PATH": str(ROOT / "models"),
            "ENVIRONMENT": "development",
            "AUTH_REQUIRED": "true",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ADMIN_PASSWORD": secrets.token_urlsafe(12),
            "MODEL_LIST": "",
        }

    def up(self, models: str = "") -> Self:
        """Starts it and waits until it answers; the fresh home is made by the stack itself.

        Args:
            models: the only model to serve; all of the repository if empty.

        Raises:
            StartError: it did not come up.
        """
        self._environment["MODEL_LIST"] = models
        # `up` waits until the default model is served.
        self._environment["DEFAULT_MODEL"] = models or "minilm"
        command = ("up", "--detach", "--port", str(self._port), *self._extra)
        if self._run(*command, seconds=300) != 0:
            raise StartError(f"inferstack up: {self.log.read_text(errors='replace')[-2000:]}")
        return self

    def down(self) -> None:
        """Ends it; its data stays."""
        self._run("down", seconds=120)

    def _run(self, *arguments: str, seconds: float) -> int:
        # Into a file: a pipe would stay open as long as anything that `up` leaves behind.
        with self.log.open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", "inferstack.cli", *arguments],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
                check=False,
            )
        return done.returncode

    def token(self) -> str:
        """An access token of the admin, by a real login."""
        if not self._token:
            login = {"username": "admin", "password": self._environment["ADMIN_PASSWORD"]}
            answer = ask(f"{self.url}/api/auth/login", json.dumps(login).encode())
            self._token = json.loads(answer)["access_token"]
        return self._token

    def target(self, kind: str, *, wait: bool = True) -> Target:
        """Where to send a kind of payload.

        Args:
            kind: `echo`, `same` or `mixed`.
            wait: whether the answer is the result, rather than a 202.
        """
        headers = {"Authorization": f"Bearer {self.token()}"} | (WAIT if wait else {})
        bodies = payloads.bodies(kind, model=MODELS[kind])
        return Target("inferstack", f"{self.url}/api/inference", bodies, headers)

    def first_answer(self, kind: str) -> dict[str, Any]:
        """Repeats a request until it is served; returns the finished task.

        Raises:
            StartError: time ran out.
        """
        until = time.monotonic() + PATIENCE
        problem = "no answer"
        while time.monotonic() < until:
            try:
                target = self.target(kind)
                task: dict[str, Any] = json.loads(ask(target.url, target.bodies[0], target.headers))
                if task["status"] == "completed":
                    return task
                problem = str(task)
            except (OSError, urllib.error.URLError) as error:
                problem = str(error)
            time.sleep(0.1)
        raise StartError(f"inferstack served no {kind} request in {PATIENCE:g} s: {problem}")

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.home / "state.json").read_bytes())
        return state

    def redis(self) -> "Redis":
        """A client of the stack's own Redis."""
        return Redis.from_url(self._state()["redis_url"])

    def archived(self) -> int:
        """Finished tasks in PostgreSQL."""
        url = self._state()["database_url"].replace("+psycopg", "")
        query = "SELECT count(*) FROM tasks WHERE state IN ('completed', 'failed')"
        with psycopg.connect(url) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def settle(self, deployment: str = "echo:1") -> float:
        """Waits until nothing waits to be archived; returns how many seconds it took.

        Raises:
            RuntimeError: the recorder is still behind after a minute.
        """
        started = time.monotonic()
        with self.redis() as client:
            while client.xlen(f"is:{{{deployment}}}:out"):
                if time.monotonic() - started > SETTLE:
                    raise RuntimeError("the recorder does not catch up")
                time.sleep(0.02)
        return time.monotonic() - started


def cpu_seconds(client: "Redis") -> float:
    """Processor time of a Redis server, in seconds, with that of its children."""
    found: dict[str, Any] = client.info("cpu")
    names = ("used_cpu_sys", "used_cpu_user", "used_cpu_sys_children", "used_cpu_user_children")
    return float(sum(found[name] for name in names))


@contextmanager
def deployed(
    place: Path, models: str, kind: str, extra: tuple[str, ...] = ()
) -> Iterator[Deployment]:
    """A stack in a fresh home under `place` that has served its first request.

    Args:
        place: folder for homes; on a real disk, or `always` means nothing.
        models: the only model to serve; all of the repository if empty.
        kind: the payload of the first request.
        extra: more options of `inferstack up`.

    Raises:
        StartError: it did not come up.
    """
    stack = Deployment(fresh_home(place), free_port(), extra)
    try:
        stack.up(models)
        stack.first_answer(kind)
        yield stack
    finally:
        stack.down()
        keep_logs(stack.home, place)


def fresh_home(place: Path) -> Path:
    """A path under `place` that no stack has used yet."""
    return place / f"home-{secrets.token_hex(4)}"


def keep_logs(home: Path, place: Path) -> None:
    """Moves the logs of a home next to it and removes the rest."""
    if (home / "logs").exists():
        shutil.move(home / "logs", place / f"logs-{home.name}")
    shutil.rmtree(home, ignore_errors=True)
