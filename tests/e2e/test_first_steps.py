"""What a stranger does first: start everything, send the first request, come back tomorrow."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inferstack.local.home import free_port
from tests.engines.model_card import embedding

ROOT = Path(__file__).parents[2]
NOT_DEFAULTS = {
    "REDIS_URL",
    "DATABASE_URL",
    "RAY_ADDRESS",
    "MODEL_PATH",
    "MODEL_LIST",
    "DEFAULT_MODEL",
}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command() -> Iterator[Command]:
    """Runs `inferstack ...` with its defaults, in a home of its own; ends what it left."""
    with tempfile.TemporaryDirectory(prefix="inferstack-e2e-") as folder:
        Path(folder).chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name not in NOT_DEFAULTS}

        def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "inferstack.cli", *arguments],
                cwd=ROOT,
                env=kept | {"INFERSTACK_HOME": f"{folder}/home"} | env,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )

        yield run
        run("down")


def counted(url: str) -> list[float]:
    """Requests, tasks answered and tasks finished that are like the first one, by the metrics."""
    page = httpx.get(f"{url}/metrics").text
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    completed = {"model": "minilm", "version": "1", "state": "completed"}
    wanted = {
        "http_requests_total": {"route": "/api/inference", "method": "POST", "status": "200"},
        "inferstack_tasks_answered_total": completed,
        "inferstack_tasks_finished_total": completed | {"priority": "normal"},
    }
    return [
        sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())
        for name, labels in wanted.items()
    ]


@pytest.mark.timeout(600)
def test_the_first_request_is_answered_and_outlives_a_restart_of_everything(
    command: Command,
) -> None:
    port = free_port(None)
    url = f"http://127.0.0.1:{port}"
    up = command("up", "--detach", "--port", str(port))
    assert up.returncode == 0, up.stderr
    assert f"curl -s {url}/api/inference" in up.stdout
    before = counted(url)

    answer = httpx.post(
        f"{url}/api/inference",
        json={"data": {"text": "Hello, world!"}},
        headers={"Prefer": "wait=30"},
        timeout=40,
    )
    assert answer.status_code == 200, answer.text
    task = answer.json()
    assert task["status"] == "completed"
    assert len(task["result"]["embedding"]) == 384
    assert (task["model"], task["model_version"], task["attempts"]) == ("minilm", 1, 1)

    until = time.monotonic() + 20
    while (after := counted(url)) != [count + 1 for count in before]:
        assert time.monotonic() < until, (before, after)
        time.sleep(0.1)

    received = np.array(task["result"]["embedding"])
    assert received @ embedding("Hello, world!") / np.linalg.norm(received) > 0.9999

    again = command("infer", "--model", "minilm", "Hello, world!")
    assert json.loads(again.stdout)["embedding"] == pytest.approx(
        task["result"]["embedding"], abs=1e-5
    )

    # Without `echo`, as a stack of a user's own models.
    script = ROOT / "scripts/integration-test.sh"
    checked = subprocess.run(
        [str(script), url],
        env=os.environ | {"ECHO_MODEL": "none"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert checked.stdout.endswith(" passed, 0 failed\n"), checked.stdout + checked.stderr

    assert command("down").returncode == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    # What is done outlives it, whatever is served then; this model is there soonest.
    soon = {"MODEL_LIST": "echo", "DEFAULT_MODEL": "echo"}
    assert command("up", "--detach", "--port", str(port), **soon).returncode == 0
    kept = httpx.get(f"{url}/api/inference/{task['task_id']}")
    assert kept.json()["result"] == task["result"]
    assert task["task_id"] in command("tasks", "--json").stdout
