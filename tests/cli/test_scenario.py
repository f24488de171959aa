"""`inferstack bench --scenario` against a server that answers as the API's contract says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferstack.client.scenarios import ScenarioName
from tests.cli.command import run
from tests.client.server import Answer, Contract, Server, problem

SMOKE = ("bench", "--scenario", "smoke", "--duration", "0.8")
"""Four requests, after the one before the load."""

TASK = {"task_id": "1", "model": "echo", "model_version": 1, "priority": "normal"}
FINE: Answer = (
    200,
    {},
    TASK | {"status": "completed", "created_at": "2026-01-02T03:04:05.678Z"},
)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def contract(server: Server) -> Contract:
    return server.contract


def test_limits_that_hold_are_exit_status_0(tmp_path: Path, server: Server) -> None:
    done = run(tmp_path, *SMOKE, "--url", server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("smoke: all 4 limits held\n")
    assert done.stderr == (
        f"smoke, a few requests: does it answer at all? 4 requests to {server.url}: 5/s for 0.8 s\n"
    )


def test_what_is_sent_is_what_is_declared_as_whom_it_says(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    given = ("--model", "echo", "--payload", '{"n": 1}', "--wait", "7")
    run(tmp_path, *SMOKE, *given, "--token", "t0ken", "--url", server.url)
    sent = contract.seen[1:]
    assert len(sent) == 4
    assert {seen.headers["authorization"] for seen in contract.seen} == {"Bearer t0ken"}
    assert {seen.headers["prefer"] for seen in sent} == {"wait=7"}
    assert [seen.body["priority"] for seen in sent] == ["high", "normal", "normal", "normal"]
    assert {json.dumps(seen.body["data"]) for seen in sent} == {'{"n": 1}'}
    assert {seen.body["model"] for seen in sent} == {"echo"}


def test_a_limit_that_breaks_is_told_and_is_exit_status_1(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    contract.compute = 1.1
    done = run(tmp_path, *SMOKE, "--url", server.url)
    assert done.returncode == 1
    *_, missed, verdict = done.stdout.splitlines()
    assert missed.startswith("MISSED smoke: p95 1,1")
    assert missed.endswith(" ms, at most 1,000 ms")
    assert verdict == "smoke: missed 1 of 4 limits"


def test_why_requests_failed_is_told(tmp_path: Path, server: Server, contract: Contract) -> None:
    contract.script.extend([FINE, problem(503, "queue-unavailable", "no")])
    done = run(tmp_path, *SMOKE, "--wait", "0", "--json", "--url", server.url)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert not found["held"]
    assert found["stages"][0]["reasons"] == {"status 503": 1}
    assert {check["name"]: check["measured"] for check in found["stages"][0]["checks"]} == {
        "failed": 0.25,
        "refused": 0.0,
        "unsent": 0.0,
        "p95_ms": found["stages"][0]["latency_ms"]["p95"],
    }


def test_a_task_that_failed_is_no_answer(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    contract.script.append(FINE)
    contract.outcome = {"status": "failed"}
    done = run(tmp_path, *SMOKE, "--url", server.url)
    assert "smoke: failed: 4 not-completed" in done.stdout, done.stderr
    assert "MISSED smoke: failed 100.000%, at most 0.000%" in done.stdout


def test_a_refusal_of_the_first_request_ends_it_in_one_line(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    contract.script.append(problem(401, "unauthenticated", "send an access token or an API key"))
    done = run(tmp_path, *SMOKE, "--url", server.url)
    assert done.returncode == 1
    assert done.stderr == "401 unauthenticated: send an access token or an API key\n"
    assert len(contract.seen) == 1


def test_a_scenario_that_is_not_declared_is_exit_status_2_with_those_that_are(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, "bench", "--scenario", "lod")
    assert done.returncode == 2
    for name in ScenarioName:
        assert f"'{name}'" in done.stderr
