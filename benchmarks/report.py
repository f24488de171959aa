"""Tables for people, JSON for programs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import targets
from benchmarks.client import Sample
from benchmarks.targets import Verdict

RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"


def rates(console: Console, samples: Sequence[Sample]) -> None:
    """A row for each system and payload, a column for each number of connections."""
    if not samples:
        return
    found = targets.middle(samples)
    columns = sorted({connections for _, _, connections in found})
    table = Table("system", "payload", title="requests per second, middle of the rounds")
    for connections in columns:
        table.add_column(f"{connections} conn" if connections else "in process", justify="right")
    for system, kind in dict.fromkeys((system, kind) for system, kind, _ in found):
        cells = [found.get((system, kind, connections)) for connections in columns]
        table.add_row(system, kind, *("" if cell is None else f"{cell:,.1f}" for cell in cells))
    console.print(table)


def verdicts(console: Console, found: Sequence[Verdict]) -> None:
    """Every measure against its target."""
    table = Table("measure", title="what it must reach")
    for name in ("value", "target", "", "detail"):
        table.add_column(name, justify="left" if name in ("", "detail") else "right")
    for verdict in found:
        sign = "≥" if verdict.at_least else "≤"
        bound, outcome = f"{sign} {verdict.bound:g}{verdict.unit}", "[green]pass[/green]"
        if not verdict.judged:
            bound, outcome = "", "[dim]shown[/dim]"
        elif not verdict.met:
            outcome = "[bold red]MISS[/bold red]"
        value = f"{verdict.value:,.2f}{verdict.unit}"
        table.add_row(verdict.measure, value, bound, outcome, verdict.detail)
    console.print(table)


def write(path: Path, content: dict[str, Any]) -> None:
    """Replaces the JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = msgspec.to_builtins(content, str_keys=True)
    path.write_text(json.dumps(plain, indent=2) + "\n")
