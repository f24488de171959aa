"""API processes as the supervisor runs them: `python -m inferstack.api`."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services import free_port

Environment = dict[str, str]


@pytest.fixture
def environment(clean_redis_url: str, postgres_url: str, tmp_path: Path) -> Environment:
    return os.environ | {
        "REDIS_URL": clean_redis_url,
        "DATABASE_URL": postgres_url,
        "INFERSTACK_HOME": str(tmp_path),
        "MODEL_PATH": str(tmp_path),
        "PORT": str(free_port()),
    }


class Api:
    """One API process."""

    def __init__(self, environment: Environment) -> None:
        command = [sys.executable, "-m", "inferstack.api"]
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            try:
                if httpx.get(f"{self.url}/health", verify=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def api(environment: Environment) -> Iterator[Api]:
    found = Api(environment)
    yield found
    found.process.kill()
    found.process.communicate()


def test_a_process_ends_with_0_after_sigterm(api: Api) -> None:
    api.wait()
    assert httpx.get(f"{api.url}/api/models", verify=False).json() == {"models": []}
    assert api.stop() == 0


def test_a_port_in_use_is_one_line_and_1(api: Api, environment: Environment) -> None:
    api.wait()
    second = Api(environment)
    _, errors = second.process.communicate(timeout=30)
    assert second.process.returncode == 1
    assert errors.decode().count("\n") == 1
    assert environment["PORT"] in errors.decode()
    assert api.stop() == 0


def test_processes_that_share_a_port_show_metrics_of_all(environment: Environment) -> None:
    environment["API_PROCESSES"] = "2"
    both = [Api(environment), Api(environment)]
    try:
        names = {f'process="api-{api.process.pid}"' for api in both}
        deadline = time.monotonic() + 30
        while True:
            both[0].wait()
            text = httpx.get(f"{both[0].url}/metrics", verify=False).text
            if all(name in text for name in names):
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [api.stop() for api in both] == [0, 0]
    finally:
        for api in both:
            api.process.kill()
            api.process.communicate()


def test_sigterm_ends_a_process_that_waits_for_redis(environment: Environment) -> None:
    environment |= {"REDIS_URL": f"redis://127.0.0.1:{free_port()}", "BATCHSIZE": "8"}
    api = Api(environment)
    assert api.process.stderr is not None
    assert b"BATCHSIZE is no setting" in api.process.stderr.readline()
    while b"completions do not arrive" not in api.process.stderr.readline():
        assert api.process.poll() is None
    begun = time.monotonic()
    assert api.stop() == 0
    assert time.monotonic() - begun < 3


def test_a_password_that_the_administrator_cannot_have_is_one_line_and_1(
    environment: Environment,
) -> None:
    api = Api(environment | {"ADMIN_PASSWORD": "short"})
    _, errors = api.process.communicate(timeout=30)
    assert api.process.returncode == 1
    assert errors.decode() == "ADMIN_PASSWORD: it takes 8 to 1024 characters\n"
