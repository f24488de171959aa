"""How commands speak: answers to stdout, everything else to stderr."""

import logging
import re
import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 1000
"""Columns where nobody looks at a terminal: a program that reads lines needs them whole."""
WIDE = 120
"""Columns from which tables show more than the most needed."""


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class PlainConsole(Console):
    """Shows what would command a terminal: what models and callers wrote is only text."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The text with a mark in place of each control character."""
        return super().render_str(CONTROL.sub("\ufffd", text), **options)


def console(*, stderr: bool = False) -> Console:
    """A console that prints every text as it is: names and reasons may look like markup."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal else PIPE_WIDTH
    return PlainConsole(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


answers = console()
errors = console(stderr=True)


def as_json(value: Any) -> None:
    """Prints a value as indented JSON, fit for a pipe."""
    # At once: what the interpreter cannot write when it ends it complains about.
    print(msgspec.json.format(msgspec.json.encode(value)).decode(), flush=True)


def table(*whole: str, folded: tuple[str, ...] = ()) -> Table:
    """A table without lines.

    Args:
        whole: columns that are never cut or wrapped, such as ids and times; they come first.
        folded: columns that share what is left, on several lines if need be.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in whole:
        made.add_column(name, no_wrap=True, overflow="ignore")
    for name in folded:
        made.add_column(name, overflow="fold")
    return made


class ToConsole(logging.Handler):
    """Sends log lines through a console, above what it shows live."""

    def __init__(self, target: Console) -> None:
        """Args: target: where to."""
        super().__init__()
        self._target = target
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one line."""
        self._target.print(self.format(record), soft_wrap=True)
