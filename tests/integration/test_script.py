"""`scripts/integration-test.sh` against a real stack, and where there is none."""

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.client.server import Server
from tests.integration.conftest import Guarded
from tests.local.stack import ROOT
from tests.services import free_port

GIVEN = {"API_KEY", "USERNAME", "PASSWORD", "ECHO_MODEL", "TEXT_MODEL", "MAX_BODY_BYTES"}
NO_MINILM = "wait: minilm returns a result"
"""The stack of these tests serves `echo` alone, which starts fast."""


def check(url: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in GIVEN}
    return subprocess.run(
        [str(ROOT / "scripts" / "integration-test.sh"), url],
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """How many checks passed; none may have failed."""
    found = re.fullmatch(r"(\d+) passed, 0 failed", done.stdout.splitlines()[-1])
    assert found is not None, done.stdout + done.stderr
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert done.stdout.count("ok  ") == int(found[1])
    return int(found[1])


def skipped(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The checks that say why they were skipped."""
    found = set(re.findall(r"^skipped  (\w+: [^:]+): ", done.stdout, re.MULTILINE))
    assert f"{len(found)} skipped: see above" in done.stdout or not found
    return found


def test_all_checks_pass_where_callers_need_no_credentials(url: str) -> None:
    done = check(url)
    assert passed(done) >= 28
    assert skipped(done) == {
        NO_MINILM,
        "auth: a caller without credentials is refused",
        "auth: an API key is made, works, and is revoked",
    }


def test_all_checks_pass_with_a_password_and_with_a_key_and_nothing_is_left(
    guarded: Guarded, api_key: str
) -> None:
    login = {"username": guarded.username, "password": guarded.password}
    # At the same time: one caller must not disturb another one's checks.
    with ThreadPoolExecutor(1) as elsewhere:
        by_key = elsewhere.submit(check, guarded.url, API_KEY=api_key)
        by_password = check(guarded.url, USERNAME=guarded.username, PASSWORD=guarded.password)
    assert passed(by_password) == passed(by_key.result()) + 1 >= 31
    assert skipped(by_password) == skipped(by_key.result()) == {NO_MINILM}
    assert guarded.password not in by_password.stdout
    assert api_key not in by_key.result().stdout
    with httpx.Client(base_url=guarded.url) as http:
        token = http.post("/api/auth/login", json=login).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        keys = http.get("/api/auth/keys").json()["keys"]
        made = [key for key in keys if key["name"] == "integration-test"]
        assert len(made) == 2
        assert all(key["revoked_at"] for key in made)
        for status in ("queued", "running"):
            assert http.get("/api/inference", params={"status": status}).json()["tasks"] == []


def test_a_model_that_is_not_served_is_skipped_or_fails_when_there_is_no_other(url: str) -> None:
    done = check(url, ECHO_MODEL="nothing", TEXT_MODEL="nowhere")
    assert done.returncode == 1
    assert "FAILED   models: nothing or nowhere is ready: neither nothing nor" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" passed, 1 failed")


def test_credentials_that_are_missing_or_wrong_are_told_in_one_line(guarded: Guarded) -> None:
    done = check(guarded.url)
    assert done.returncode == 1
    assert "it takes credentials: set API_KEY, or USERNAME and PASSWORD" in done.stdout
    done = check(guarded.url, API_KEY="is_wrong")
    assert done.returncode == 1
    assert "FAILED   auth: the caller is let in: status 401 instead of 200" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(" passed, 1 failed")


def test_where_nobody_listens_it_says_so_at_once() -> None:
    began = time.monotonic()
    url = f"http://127.0.0.1:{free_port()}"
    done = check(url)
    assert time.monotonic() - began < 10
    assert done.returncode == 1
    first, last = done.stdout.splitlines()
    assert f"FAILED   health: the stack answers and is healthy: nothing answers at {url}" in first
    assert last == "0 passed, 1 failed"


def test_what_is_no_stack_fails() -> None:
    with Server() as other:
        done = check(other.url)
    assert done.returncode == 1
    assert "status 404 instead of 200" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_a_wrong_call_is_one_line_with_exit_status_2() -> None:
    for url, env in (
        ("localhost:8000", {}),
        ("http://127.0.0.1", {"ECHO_MODEL": 'a"b'}),
        ("http://127.0.0.1", {"MAX_BODY_BYTES": "16M"}),
    ):
        done = check(url, **env)
        assert done.returncode == 2
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
