"""`tests/load-test.js`, as far as that goes without k6: on modules that do what it uses of k6."""

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from inferstack.client import scenarios
from inferstack.client.scenarios import Declaration, Scenario, ScenarioName
from tests.client.server import Server, problem
from tests.integration.conftest import Guarded
from tests.local.stack import ROOT
from tests.services import free_port

OWN = Path(__file__).parent / "k6"
SCRIPT = "tests/load-test.js"
ASKED = {"SCENARIO", "RATE", "DURATION", "CONNECTIONS", "WAIT", "MODEL", "MODEL_VERSION", "DATA"}

Drive = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script and what it reads, where `k6/http` and the like are found by Node.js."""
    if shutil.which("node") is None:
        assert not os.environ.get("CI"), "there is no Node.js"
        pytest.skip("NOT TESTED: tests/load-test.js; install Node.js 20.19 or newer")
    found = tmp_path_factory.mktemp("k6")
    shutil.copytree(OWN / "shim", found / "node_modules" / "k6")
    shutil.copy(OWN / "drive.mjs", found)
    for path in (SCRIPT, str(scenarios.FILE.relative_to(ROOT))):
        (found / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, found / path)
    (found / "package.json").write_text('{"type": "module"}')
    return found


@pytest.fixture(scope="module")
def drive(folder: Path) -> Drive:
    """Runs the script: `drive("smoke:3", MODEL="echo")`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ASKED and not name.startswith(("INFERSTACK_", "ALLOW_REMOTE"))
    }

    def run(*iterations: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["node", "drive.mjs", SCRIPT, *iterations],
            cwd=folder,
            env=kept | env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="module")
def declared() -> Declaration:
    return scenarios.declaration()


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected(declared: Declaration, scenario: Scenario) -> dict[str, Any]:
    """What the options of k6 are for a scenario, by our own reading of the declaration."""
    found: dict[str, Any] = {}
    thresholds: dict[str, list[str]] = {}
    begin = 0.0
    grace = f"{scenario.wait + declared.patience:g}s"
    for stage, step in zip(scenario.stages, scenario.steps(), strict=True):
        limits = declared.limits[stage.limits]
        found[stage.name] = {
            "executor": "constant-arrival-rate",
            "startTime": f"{begin * 1000:.0f}ms",
            "duration": f"{stage.seconds * 1000:.0f}ms",
            "rate": step.rate,
            "timeUnit": "1s",
            "preAllocatedVUs": scenario.connections,
            "maxVUs": scenario.connections,
            "gracefulStop": grace,
        }
        begin += stage.seconds
        tag = f"{{scenario:{stage.name}}}"
        thresholds[f"inferstack_failed{tag}"] = [f"rate<={limits.failed:g}"]
        thresholds[f"inferstack_refused{tag}"] = [f"rate<={limits.refused:g}"]
        dropped = math.ceil(step.rate * step.seconds) * limits.unsent
        thresholds[f"dropped_iterations{tag}"] = [f"count<={dropped:g}"]
        latencies = {"p(95)": limits.p95_ms, "p(99)": limits.p99_ms}
        thresholds[f"inferstack_latency{tag}"] = [
            f"{name}<={limit:g}" for name, limit in latencies.items() if limit
        ] or ["max>=0"]
    return {"scenarios": found, "thresholds": thresholds}


def test_its_syntax_is_right(folder: Path) -> None:
    done = subprocess.run(
        ["node", "--check", SCRIPT], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ScenarioName)
def test_its_scenarios_and_thresholds_are_the_declared_ones(
    drive: Drive, declared: Declaration, name: ScenarioName
) -> None:
    options = answer(drive(SCENARIO=name))["options"]
    options.pop("summaryTrendStats")
    assert options == expected(declared, declared.scenarios[name])


def test_it_takes_other_figures_as_the_command_does(drive: Drive, declared: Declaration) -> None:
    given = {"RATE": "20", "DURATION": "10", "CONNECTIONS": "9", "WAIT": "5"}
    options = answer(drive(SCENARIO="spike", **given))["options"]
    changed = declared.scenarios[ScenarioName.SPIKE].changed(
        rate=20, duration=10, connections=9, wait=5
    )
    options.pop("summaryTrendStats")
    assert options == expected(declared, changed)


def test_load_is_what_it_runs_if_nothing_is_said(drive: Drive) -> None:
    assert answer(drive())["options"] == answer(drive(SCENARIO="load"))["options"]


def test_it_sends_what_the_command_sends(
    drive: Drive, server: Server, declared: Declaration
) -> None:
    bodies = declared.bodies(wait=30, model="echo", version=1)
    env = {"INFERSTACK_URL": server.url, "INFERSTACK_API_KEY": "is_key"}
    found = answer(drive("steady:11", MODEL="echo", MODEL_VERSION="1", **env))
    first, *rest = server.contract.seen
    assert first.headers["prefer"] == "wait=60"
    assert [seen.body for seen in rest] == [json.loads(body) for body in [*bodies, bodies[0]]]
    assert {(seen.method, seen.path) for seen in rest} == {("POST", "/api/inference")}
    for name, value in {"prefer": "wait=30", "x-api-key": "is_key"}.items():
        assert {seen.headers[name] for seen in rest} == {value}
    metrics = found["metrics"]
    assert metrics["inferstack_failed"] == metrics["inferstack_refused"] == [False] * 11
    assert len(metrics["inferstack_latency"]) == 11


def test_it_tells_refusals_from_failures(drive: Drive, server: Server) -> None:
    full = problem(429, "tenant-queue-full", "no")
    silent = problem(503, "queue-unavailable", "no")
    later = {"retry-after": "2"}
    server.contract.script.extend(
        [
            (202, {}, {"task_id": "1", "status": "queued"}),
            (full[0], full[1] | later, full[2]),
            (silent[0], silent[1] | later, silent[2]),
            silent,
            (200, {}, {"task_id": "2", "status": "failed"}),
        ]
    )
    metrics = answer(drive("spike:4", SCENARIO="spike", INFERSTACK_URL=server.url))["metrics"]
    assert metrics["inferstack_refused"] == [True, True, False, False]
    assert metrics["inferstack_failed"] == [False, False, True, True]
    assert len(metrics["inferstack_latency"]) == 2


def test_its_requests_are_served_by_a_real_api(drive: Drive, guarded: Guarded) -> None:
    login = {"username": guarded.username, "password": guarded.password}
    token = httpx.post(f"{guarded.url}/api/auth/login", json=login).json()["access_token"]
    env = {"INFERSTACK_URL": guarded.url, "INFERSTACK_TOKEN": token, "MODEL": "echo"}
    for name, stage in (("smoke", "smoke"), ("stress", "x1")):
        metrics = answer(drive(f"{stage}:4", SCENARIO=name, **env))["metrics"]
        assert metrics["inferstack_failed"] == metrics["inferstack_refused"] == [False] * 4


def test_what_is_wrong_is_told_before_the_load(drive: Drive, guarded: Guarded) -> None:
    for env, text in (
        ({"INFERSTACK_URL": "http://10.0.0.1"}, "is not this machine: set ALLOW_REMOTE=1"),
        ({"INFERSTACK_URL": "http://127.0.0.1:80@10.0.0.1"}, "is not this machine"),
        ({"SCENARIO": "lod"}, "SCENARIO=lod: it takes one of smoke, load, stress, spike, soak"),
        ({"RATE": "fast"}, "RATE=fast: it takes a number"),
        ({"INFERSTACK_URL": guarded.url}, "does not serve: status 401"),
        ({"INFERSTACK_URL": f"http://127.0.0.1:{free_port()}"}, "does not serve: status 0"),
    ):
        done = drive("steady:1", **env)
        assert done.returncode == 1
        assert text in done.stderr, (env, done.stderr)


def test_another_machine_is_loaded_when_asked_for(drive: Drive) -> None:
    assert answer(drive(INFERSTACK_URL="https://inference.example", ALLOW_REMOTE="1"))
