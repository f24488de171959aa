"""Every command of the documentation runs, or its block says in its first line what it needs."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import typer

from inferstack.cli import app
from inferstack.task import TaskState
from tests.docs.pages import MARKS, NAMES, ROOT, Block, blocks, commands, prose
from tests.docs.stack import DocumentedStack
from tests.local.stack import readable_folder

ELSEWHERE = {
    "docs/backup.md": "tests/backup/test_round_trip.py",
    "docs/deployment.md": "tests/deployment/test_guides.py",
}
"""Pages whose blocks another test runs: it looks at what they have done, too."""
PAGES = [
    page
    for page in NAMES
    if page not in ELSEWHERE and any(block.mark is None for block in commands(page))
]
ALL = [block for page in NAMES for block in commands(page)]
OWN = re.compile(
    r"(?:^|[;&|(])\s*(?:[A-Z_]+=\S+ )*(?:\S*/)?inferstack ((?:[^\n|;&>)#\\]|\\\n)*)", re.MULTILINE
)
"""A command line of ours; the group holds its arguments."""
DIFFERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d{2}-\d{2}T.*")
"""Ids and times."""


@pytest.fixture(scope="module")
def stack() -> Iterator[DocumentedStack]:
    with readable_folder() as folder:
        stack = DocumentedStack(folder)
        try:
            stack.up()
            with stack.client() as client:
                failed = client.submit({"fail": "on purpose"}, model="echo").task_id
                assert client.wait(failed).status is TaskState.FAILED
            yield stack
            stack.print_logs()
        finally:
            stack.close()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_and_answer_what_it_shows(
    stack: DocumentedStack, page: str
) -> None:
    run = [block for block in commands(page) if block.mark is None]
    printed = dict(zip((block.line for block in run), stack.type(run), strict=True))
    for block, answer in answers(page):
        if block.line in printed:
            real = last_json(printed[block.line])
            assert differences(json.loads(answer.text), real) == [], f"{page}:{answer.line}"


@pytest.mark.parametrize("page", ELSEWHERE)
def test_the_commands_of_the_other_pages_are_run_by_their_own_tests(page: str) -> None:
    assert f'commands("{page}")' in (ROOT / ELSEWHERE[page]).read_text()


def test_marks_are_spelled_right() -> None:
    """A first line that only resembles one would let a block run, or hide it."""
    first = {block.text.partition("\n")[0] for block in ALL}
    meant = {
        line for line in first if re.match(r"# ?(needs?|restarts?|runs?|stops?|takes?)\b", line)
    }
    assert meant - MARKS == set()


def test_what_is_not_run_names_what_is_there() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for block in ALL for name in re.findall(r"^make (\w+)", block.text, re.M)} <= (
        targets
    )
    paths = r"(?<![\w./-])((?:scripts|nginx|monitoring|kubernetes|docker|models)/[\w./-]*\w)"
    made = {"nginx/ssl", "nginx/ssl/key.pem", "nginx/ssl/cert.pem", "models/mymodel"}
    made |= {"models/bge-small/1", "models/bge-small/1/config.yaml"}
    made |= {f"monitoring/prometheus/targets{name}" for name in ("", "/workers.yml", "/dcgm.yml")}
    named = {path for block in ALL for path in re.findall(paths, block.text)} - made
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", NAMES)
def test_our_own_commands_and_their_options_exist(page: str) -> None:
    lines = [line for block in commands(page) for line in OWN.findall(block.text)]
    lines += re.findall(r"`inferstack ([a-z][^`…]*)`", prose(page))
    assert {line: word for line in lines if (word := unknown(_words(line)))} == {}


def test_an_option_that_does_not_exist_is_found() -> None:
    assert unknown(["up", "--prot", "8001"]) == "--prot"
    assert unknown(["dead-letters", "requeue"]) == "requeue"
    assert unknown(["infer", "--model=minilm", "-"]) is None
    assert OWN.findall("A=b .venv/bin/inferstack up --x 1 \\\n  -y # not this") == [
        "up --x 1 \\\n  -y "
    ]


def test_a_wrong_answer_is_found() -> None:
    shown = {"id": "019b8d7d-f237-76a8-9c52-5b0f3f0c8f11", "ok": True, "n": 1, "v": [0.1]}
    real = {"id": "019b8d7d-f237-76a8-9c52-5b0f3f0c8f12", "ok": True, "n": 2, "v": [0.1, 0.2]}
    assert differences(shown, real) == []
    wrongs: list[dict[str, Any]] = [{"ok": False}, {"n": "2"}, {"v": [0.2]}, {"v": []}]
    wrongs += [{"more": 1}, {"id": None}]
    for wrong in wrongs:
        assert differences(shown, real | wrong) != []


def answers(page: str) -> list[tuple[Block, Block]]:
    """Blocks of commands, each with the JSON that the page shows below it."""
    every = blocks(page)
    shells = commands(page)
    return [
        (above, below)
        for above, below in pairwise(every)
        if above in shells and below.kind == "json"
    ]


def last_json(printed: str) -> Any:
    """What a block has printed, or the last line of it."""
    try:
        return json.loads(printed)
    except json.JSONDecodeError:
        return json.loads(printed.strip().rpartition("\n")[2])


def differences(shown: Any, real: Any, place: str = "") -> list[str]:
    """Where a real answer is not like the one that is shown.

    Ids, times and numbers differ from run to run, but not in kind. Of a list the beginning is
    shown; its numbers are those of an embedding, which do not differ.
    """
    if isinstance(shown, dict) and isinstance(real, dict):
        if shown.keys() != real.keys():
            return [f"{place}: {sorted(shown.keys() ^ real.keys())}"]
        pairs = [(f"{place}.{key}", value, real[key]) for key, value in shown.items()]
    elif isinstance(shown, list) and isinstance(real, list) and len(shown) <= len(real):
        if all(isinstance(item, float) for item in shown):
            near = real[: len(shown)] == pytest.approx(shown, abs=1e-3)
            return [] if near else [f"{place}: {real[: len(shown)]}"]
        pairs = [(f"{place}[{i}]", *both) for i, both in enumerate(zip(shown, real, strict=False))]
    elif type(shown) in (int, float):
        return [] if type(real) in (int, float) else [f"{place}: {real!r}"]
    elif isinstance(shown, str) and DIFFERS.fullmatch(shown):
        return [] if isinstance(real, str) and DIFFERS.fullmatch(real) else [f"{place}: {real!r}"]
    else:
        return [] if shown == real else [f"{place}: {real!r}"]
    return [found for name, one, other in pairs for found in differences(one, other, name)]


def unknown(words: list[str]) -> str | None:
    """The first argument that the command line does not know."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if word.startswith("--"):
            known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
            if word.partition("=")[0] not in known | {"--help"}:
                return word
        elif word[:1].isalpha() and hasattr(command, "commands"):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quoted text that holds what ends a command
        return line.split()
