"""What each process does at its start about a service that is away, or that does not let it in."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import redis

from inferstack.config import Settings
from inferstack.storage.migrations import migrate
from inferstack.telemetry import peers, pulse
from tests.deployment.files import ROOT
from tests.services import PostgresServer, RedisServer, S3Server, free_port

PATIENCE = 60.0
REFUSALS = {
    "api": ("REDIS_URL", "DATABASE_URL", "S3_SECRET_KEY"),
    "recorder": ("REDIS_URL", "DATABASE_URL"),
    "background": ("REDIS_URL", "CELERY_BROKER_URL", "DATABASE_URL", "S3_SECRET_KEY"),
    "worker.pool": ("REDIS_URL", "S3_SECRET_KEY"),
    "worker.serve": ("REDIS_URL", "S3_SECRET_KEY"),
}
"""What each process asks at its start. `worker.node` asks Ray: tests/faults/test_machines.py."""
CASES = [(process, name) for process, names in REFUSALS.items() for name in names]
MISSING = {
    "api": ["REDIS_URL", "DATABASE_URL"],
    "recorder": ["REDIS_URL", "DATABASE_URL"],
    "background": ["REDIS_URL", "DATABASE_URL"],
    "worker.pool": ["REDIS_URL"],
}


class Running(NamedTuple):
    """A process, its home, and what it says."""

    process: subprocess.Popen[bytes]
    home: Path
    log: Path
    url: str

    def said(self, text: str) -> int:
        """How many lines of its log hold a text."""
        return sum(text in line for line in self.log.read_text().splitlines())

    def until(self, look: Callable[[], bool]) -> None:
        """Waits for what it is to do."""
        deadline = time.monotonic() + PATIENCE
        while not look():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def ready(self, service: str) -> bool:
        """As its orchestrator asks it."""
        if service == "api":
            try:
                return httpx.get(
                    f"{self.url}/health/ready", trust_env=False, verify=False
                ).is_success
            except httpx.TransportError:
                return False
        return pulse.alive(service, self.home, ready=True)


Start = Callable[..., Running]


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """One with tables; tests stop and start it."""
    with PostgresServer() as server:
        migrate(server.url)
        yield server


@pytest.fixture(scope="module")
def right(
    redis_url: str, postgres: PostgresServer, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """An environment in which every process starts."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return {
        "REDIS_URL": redis_url,
        "CELERY_BROKER_URL": redis_url,
        "DATABASE_URL": postgres.url,
        "S3_ENDPOINT": s3.url,
        "S3_ACCESS_KEY": s3.access,
        "S3_SECRET_KEY": s3.secret,
        "MODEL_PATH": str(tmp_path_factory.mktemp("models")),
    }


@pytest.fixture(scope="module")
def start(right: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    running: list[Running] = []
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in Settings.model_fields
    }

    def begin(process: str, **changed: str) -> Running:
        home, port = tmp_path_factory.mktemp("home"), str(free_port())
        own = right | {"INFERSTACK_HOME": str(home), "PORT": port} | changed
        log = home / "log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", f"inferstack.{process}"],
                cwd=ROOT,
                env=inherited | {"PYTHONPATH": str(ROOT)} | own,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        running.append(Running(child, home, log, f"http://127.0.0.1:{port}"))
        return running[-1]

    yield begin
    for each in running:
        each.process.kill()
        each.process.wait()
        peers.sweep(each.home)


@pytest.fixture(scope="module")
def refused(start: Start, right: dict[str, str]) -> dict[tuple[str, str], Running]:
    """Every process with every wrong credential, all at once: they need not wait for each other."""

    def wrong(value: str) -> str:
        if "://" not in value:
            return "not-the-secret-of-anybody"
        scheme, rest = value.split("://")
        return f"{scheme}://nobody:wrong@{rest.rpartition('@')[2]}"

    found = {}
    for process, name in CASES:
        found[process, name] = start(process, **{name: wrong(right[name]), "LOG_LEVEL": "ERROR"})
    return found


@pytest.mark.parametrize(("process", "name"), CASES)
def test_a_wrong_credential_ends_a_process_with_one_line_that_names_it(
    refused: dict[tuple[str, str], Running], process: str, name: str
) -> None:
    found = refused[process, name]
    assert found.process.wait(PATIENCE) == 1, found.log.read_text()
    (line,) = found.log.read_text().splitlines()
    assert re.match(rf"(\w+, )?{name}: ", line)
    assert "wrong" not in line.partition(":")[2].replace("WRONGPASS", "")


@pytest.mark.parametrize("process", MISSING)
def test_all_that_is_wrong_or_missing_is_told_at_once(start: Start, process: str) -> None:
    nothing = {"REDIS_URL": "", "DATABASE_URL": "", "CELERY_BROKER_URL": "", "BATCH_SIZE": "many"}
    found = start(process, **nothing)
    assert found.process.wait(PATIENCE) == 1
    wrong, *lines = found.log.read_text().splitlines()
    assert wrong.startswith("BATCH_SIZE='many': takes a whole number")
    assert [line.partition(" is not set; it takes ")[0] for line in lines] == MISSING[process]


@pytest.mark.parametrize("process", ["api", "background"])
def test_what_is_no_url_is_one_line(start: Start, process: str) -> None:
    found = start(process, REDIS_URL="localhost:6379", LOG_LEVEL="ERROR")
    assert found.process.wait(PATIENCE) == 1
    (line,) = found.log.read_text().splitlines()
    assert line.startswith("REDIS_URL is not a URL of Redis: ")


@pytest.mark.parametrize("process", ["api", "recorder", "background"])
def test_a_process_waits_for_redis_is_not_ready_and_starts_when_it_comes(
    start: Start, process: str
) -> None:
    server = RedisServer()
    try:
        found = start(process, REDIS_URL=server.url, CELERY_BROKER_URL=server.url)
        found.until(lambda: found.said("Redis does not answer") > 0)
        found.until(lambda: process == "api" or pulse.alive(process, found.home))
        assert not found.ready(process)
        server.start()
        found.until(lambda: found.ready(process))
    finally:
        server.close()


@pytest.mark.parametrize("process", ["recorder", "background"])
def test_a_process_waits_for_postgresql_is_not_ready_and_starts_when_it_comes(
    start: Start, postgres: PostgresServer, process: str
) -> None:
    postgres.stop()
    try:
        found = start(process)
        found.until(lambda: found.said("PostgreSQL does not answer") > 0)
        found.until(lambda: pulse.alive(process, found.home))
        assert not found.ready(process)
    finally:
        postgres.start()
    found.until(lambda: found.ready(process))
    assert found.said("PostgreSQL does not answer") == 1


def test_the_api_goes_on_without_postgresql_and_without_objects_and_says_so(
    start: Start, right: dict[str, str]
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    found = start(
        "api", DATABASE_URL=f"postgresql://a:b@{nobody}/c", S3_ENDPOINT=f"http://{nobody}"
    )
    found.until(lambda: found.ready("api"))
    assert httpx.get(f"{found.url}/health", trust_env=False).json()["status"] == "degraded"
    assert found.said("database: PostgreSQL does not answer") == 1
    assert found.said("objects: the object store failed") == 1


@pytest.mark.parametrize("process", ["worker.pool", "background"])
def test_a_term_ends_a_process_that_waits(start: Start, process: str) -> None:
    found = start(process, REDIS_URL=f"redis://127.0.0.1:{free_port()}")
    found.until(lambda: found.said("waiting for Redis (REDIS_URL): Redis does not answer") == 1)
    begun = time.monotonic()
    found.process.terminate()
    assert found.process.wait(PATIENCE) == 0, found.log.read_text()
    assert time.monotonic() - begun < 10
