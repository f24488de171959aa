"""`inferstack bench --scenario` against a real stack."""

import json

from tests.integration.conftest import Guarded
from tests.local.stack import RealStack


def test_smoke_holds_without_credentials_and_shows_one_table(stack: RealStack) -> None:
    done = stack.command("bench", "--scenario", "smoke", "--duration", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    head, stage, strain, verdict = done.stdout.splitlines()
    columns = "stage asked/s served/s p50 ms p95 ms p99 ms refused unsent failed"
    assert " ".join(head.split()) == columns
    assert stage.split()[:2] == ["smoke", "5.0"]
    assert stage.split()[-3:] == ["0", "0", "0"]
    assert strain == "It served all that was asked, up to 5.0 requests a second."
    assert verdict == "smoke: all 4 limits held"
    assert done.stderr.count("\n") == 1


def test_stress_tells_each_step_with_an_api_key(
    stack: RealStack, guarded: Guarded, api_key: str
) -> None:
    figures = ("--rate", "10", "--duration", "2.5", "--connections", "16")
    arguments = ("bench", "--scenario", "stress", "--json", "--model", "echo", *figures)
    done = stack.command(*arguments, INFERSTACK_URL=guarded.url, INFERSTACK_API_KEY=api_key)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["held"]
    assert [(s["asked"], s["due"]) for s in found["stages"]] == [
        (10, 5),
        (20, 10),
        (40, 20),
        (80, 40),
        (160, 80),
    ]
    assert all(stage["latency_ms"]["p99"] > 0 for stage in found["stages"])


def test_a_wrong_token_is_one_line(stack: RealStack, guarded: Guarded) -> None:
    done = stack.command("bench", "--scenario", "load", "--token", "no", "--url", guarded.url)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("401 unauthenticated: ")
    assert done.stderr.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line(stack: RealStack) -> None:
    done = stack.command("bench", "--scenario", "load", "--model", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("404 model-not-found: ")
    assert done.stderr.count("\n") == 1
