"""What `inferstack bench` sends."""

import json
from pathlib import Path

from inferstack.cli.bench import inputs


def test_only_a_newline_ends_an_input_of_a_file(tmp_path: Path) -> None:
    given = [{"text": "a\u2028b\u0085c\x1cd"}, {"text": "e"}]
    file = tmp_path / "inputs.jsonl"
    lines = [json.dumps(data, ensure_ascii=False) for data in given]
    file.write_text("\r\n".join(lines) + "\n", encoding="utf-8", newline="")
    assert inputs(f"@{file}") == given
