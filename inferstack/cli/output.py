"""How commands speak: answers to stdout, everything else to stderr."""

from typing import Any

import msgspec
from rich.console import Console

answers = Console()
errors = Console(stderr=True)


def as_json(value: Any) -> None:
    """Prints a value as indented JSON, fit for a pipe."""
    print(msgspec.json.format(msgspec.json.encode(value)).decode())
