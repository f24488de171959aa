"""What `inferstack bench` sends."""

import json
from pathlib import Path

import pytest

from inferstack.cli import bench
from inferstack.cli.bench import inputs
from inferstack.cli.scenario import Wanted
from inferstack.client.options import Target


def test_only_a_newline_ends_an_input_of_a_file(tmp_path: Path) -> None:
    given = [{"text": "a\u2028b\u0085c\x1cd"}, {"text": "e"}]
    file = tmp_path / "inputs.jsonl"
    lines = [json.dumps(data, ensure_ascii=False) for data in given]
    file.write_text("\r\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert inputs(f"@{file}") == given


@pytest.mark.parametrize(
    ("wait", "header"),
    [(None, {"prefer": "wait=30"}), (0.0, {}), (2_000_000.0, {"prefer": "wait=2000000"})],
)
def test_its_requests_say_what_the_command_line_says(
    wait: float | None, header: dict[str, str]
) -> None:
    wanted = Wanted(
        model="echo",
        version=None,
        data=[{"n": 1}, {"n": 2}],
        rate=None,
        duration=None,
        connections=None,
        wait=wait,
        allow_remote=False,
    )
    load = bench._load(wanted, Target(url="http://127.0.0.1:8000", headers={"x-api-key": "k"}))
    assert [json.loads(body) for body in load.bodies] == [
        {"data": {"n": 1}, "model": "echo"},
        {"data": {"n": 2}, "model": "echo"},
    ]
    assert load.headers == {"x-api-key": "k"} | header
