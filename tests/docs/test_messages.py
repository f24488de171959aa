"""The messages that docs/operations.md explains are those of the code."""

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT, text

HOLE = "…"
"""Stands for what differs."""


def shown() -> list[str]:
    """First column of the table of failures."""
    section = text("docs/operations.md").partition("## When something fails")[2].partition("\n## ")
    return re.findall(r"^\| `([^`]+)` \|", section[0], re.MULTILINE)


@cache
def said() -> frozenset[str]:
    """Every text of the code, with a hole for what is filled in."""
    found = set()
    for path in (ROOT / "inferstack").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.removesuffix("."))  # a docstring becomes a title
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else HOLE for p in node.values]
                found.add("".join(str(part) for part in parts))
    return frozenset(found)


def is_said(message: str) -> bool:
    pattern = re.compile(".*".join(map(re.escape, message.split(HOLE))), re.DOTALL)
    return any(pattern.fullmatch(line) for line in said())


@pytest.mark.parametrize("message", shown())
def test_a_message_that_is_explained_is_one_of_the_code(message: str) -> None:
    assert is_said(message)


def test_there_are_messages_and_others_are_not_taken_for_one() -> None:
    assert len(shown()) > 20
    assert not is_said("port … on … is busy")
