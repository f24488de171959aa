"""One embedded stack for all of these tests, and a second API beside it that takes credentials."""

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from inferstack import config
from inferstack.local.control import known_settings
from tests.local.stack import ROOT, RealStack, readable_folder
from tests.services import free_port

PATIENCE = 60.0


class Guarded(msgspec.Struct, frozen=True):
    """An API of the stack that lets nobody in without credentials."""

    url: str
    username: str
    password: str


@pytest.fixture(scope="package")
def stack() -> Iterator[RealStack]:
    """`inferstack up` as it is on a developer's machine: callers need no credentials."""
    with readable_folder() as folder:
        found = RealStack(folder / "home")
        try:
            found.up()
            yield found
            found.print_logs()
        finally:
            found.close()


@pytest.fixture(scope="package")
def url(stack: RealStack) -> str:
    """Where callers need no credentials."""
    return f"http://127.0.0.1:{stack.port}"


@pytest.fixture(scope="package")
def guarded(stack: RealStack) -> Iterator[Guarded]:
    """Another API process on the services of the stack, with AUTH_REQUIRED."""
    wanted = config.load(
        port=free_port(),
        model_path=ROOT / "models",
        model_list="echo",
        default_model="echo",
        inferstack_home=stack.home.root,
        redis_url=None,
        database_url=None,
    )
    settings = known_settings(stack.home, wanted)
    assert settings.admin_password is not None
    environment = config.as_environment(settings) | {"AUTH_REQUIRED": "true"}
    process = subprocess.Popen([sys.executable, "-m", "inferstack.api"], env=environment, cwd=ROOT)
    found = Guarded(
        f"http://127.0.0.1:{settings.port}",
        settings.admin_username,
        settings.admin_password.get_secret_value(),
    )
    try:
        _until_ready(found.url, process)
        yield found
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.fixture(scope="package")
def api_key(guarded: Guarded) -> str:
    """A key of the administrator."""
    login = {"username": guarded.username, "password": guarded.password}
    token = httpx.post(f"{guarded.url}/api/auth/login", json=login).json()["access_token"]
    made = httpx.post(
        f"{guarded.url}/api/auth/keys",
        json={"name": "a test"},
        headers={"Authorization": f"Bearer {token}"},
    )
    return str(made.json()["key"])


def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert process.poll() is None
        try:
            if httpx.get(f"{url}/health/ready", verify=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} did not become ready")
