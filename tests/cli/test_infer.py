"""`inferstack infer` and `bench` against a server that answers as the API's contract says."""

import json
from pathlib import Path

from tests.cli.command import run
from tests.client.server import Contract, Server, problem


def test_the_line_break_of_echo_is_not_part_of_the_text(tmp_path: Path, server: Server) -> None:
    done = run(tmp_path, "infer", "-", stdin="two\nlines\n", INFERSTACK_URL=server.url)
    assert json.loads(done.stdout) == {"text": "two\nlines"}, done.stderr


def test_text_that_is_not_utf8_is_one_line(tmp_path: Path, server: Server) -> None:
    done = run(tmp_path, "infer", "-", stdin="\udcff\udcfe", INFERSTACK_URL=server.url)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["standard input is not UTF-8"]


def test_a_task_that_expired_or_failed_is_told_in_one_line(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    contract.outcome = {"status": "expired"}
    done = run(tmp_path, "infer", "hi", "--timeout", "1", "--url", server.url)
    assert done.returncode == 1
    assert done.stderr.startswith("expired: no result within 1 s (--timeout); task ")
    contract.outcome = {"status": "failed", "error": {"type": "engine-error", "message": "[/boom]"}}
    done = run(tmp_path, "infer", "hi", "--url", server.url)
    assert done.stderr.startswith("failed: [/boom] (task ")


def test_a_wait_that_breaks_names_the_task(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    contract.script.extend(
        [(202, {}, {"task_id": "7", "status": "queued"}), problem(500, "internal-error", "no")]
    )
    done = run(tmp_path, "infer", "hi", "--url", server.url)
    assert done.returncode == 1
    assert done.stderr.endswith("no; the task lives on: `inferstack tasks 7`\n")


def test_bench_goes_where_the_environment_says_and_as_whom(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    env = {"INFERSTACK_URL": server.url, "INFERSTACK_API_KEY": "is_key"}
    arguments = ("bench", "--connections", "1", "--duration", "0.1", "--json")
    done = run(tmp_path, *arguments, **env)
    assert json.loads(done.stdout)["statuses"].keys() == {"200"}, done.stderr
    assert contract.seen[0].headers["x-api-key"] == "is_key"


def test_bench_ends_with_the_first_refusal(
    tmp_path: Path, server: Server, contract: Contract
) -> None:
    contract.script.append(problem(404, "model-not-found", "there is no model '[/x]'"))
    arguments = ("bench", "--model", "nope", "--connections", "1", "--url", server.url)
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr == "404 model-not-found: there is no model '[/x]'\n"
