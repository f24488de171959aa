"""`inferstack bench`: load on a running inferstack, and what it did with it."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferstack.cli import place, scenario
from inferstack.cli.output import answers
from inferstack.cli.tasks import Url
from inferstack.client import Submission, options, wire
from inferstack.client.load import Load, LoadReport, run_blocking
from inferstack.client.scenarios import ScenarioName
from inferstack.errors import ConfigurationError

DEFAULT_PAYLOAD = '{"text": "The quick brown fox jumps over the lazy dog near the river bank."}'
LONGEST = 4 * 3600.0
"""Seconds."""

Connections = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000,
        help="Connections, each with one request at a time.",
        show_default="64, or the scenario's",
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        min=0.1, max=LONGEST, help="Seconds in total.", show_default="10, or the scenario's"
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=0.1, help="Requests per second.", show_default="as fast as it can, or the scenario's"
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds to wait for results; 0 only submits.",
        show_default="30, or the scenario's",
    ),
]
Payload = Annotated[
    str | None,
    typer.Option(
        help="A request's `data` as JSON, or @FILE with one per line.",
        show_default="a sentence, or the scenario's texts",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        help="An access token or API key; INFERSTACK_TOKEN or INFERSTACK_API_KEY if left out."
    ),
]


def bench(
    url: Url = None,
    scenario_name: Annotated[
        ScenarioName | None,
        typer.Option("--scenario", help="A load with limits; exit status 1 if one is exceeded."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="The default model if left out.")] = None,
    version: Annotated[int | None, typer.Option(help="The newest one if left out.")] = None,
    payload: Payload = None,
    connections: Connections = None,
    duration: Duration = None,
    rate: Rate = None,
    wait: Wait = None,
    token: Token = None,
    allow_remote: Annotated[bool, typer.Option(help="Load another machine than this.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Sends requests for a while and prints the rate, the latencies and the errors.

    A request that is refused as it is (4xx, but not 408 or 429) ends it at once.

    A scenario sends one request first and ends if that fails; all others are counted and judged.
    """
    target = options.target(place.api_url(url), token, None)
    wanted = scenario.Wanted(
        model=model,
        version=version,
        data=[] if payload is None else inputs(payload),
        rate=rate,
        duration=duration,
        connections=connections,
        wait=wait,
        allow_remote=allow_remote,
    )
    if scenario_name is None:
        _measure(_load(wanted, target), as_json)
    else:
        scenario.bench(scenario_name, wanted, target, token, json=as_json)


def _load(wanted: scenario.Wanted, target: options.Target) -> Load:
    """A load at one rate, without limits."""
    wait = 30.0 if wanted.wait is None else wanted.wait
    data = wanted.data or inputs(DEFAULT_PAYLOAD)
    return Load(
        url=f"{target.url}/api/inference",
        bodies=[wire.encode(Submission(each, wanted.model, wanted.version)) for each in data],
        headers={**target.headers, **wire.prefer(wait)},
        connections=wanted.connections or 64,
        duration=wanted.duration or 10.0,
        rate=wanted.rate,
        timeout=max(wait, 5.0),
        allow_remote=wanted.allow_remote,
        stop_at_problem=True,
    )


def _measure(load: Load, as_json: bool) -> None:
    report = run_blocking(load)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        show(answers, report)
    if report.failed:
        raise typer.Exit(1)


def inputs(payload: str) -> list[dict[str, Any]]:
    """The inputs that a payload stands for.

    Args:
        payload: one `data` object as JSON, or `@` and a file with one on each line.

    Raises:
        ConfigurationError: a payload is no JSON object, or the file cannot be read.
    """
    lines = [payload]
    if payload.startswith("@"):
        try:
            # Not splitlines: a text in JSON may hold what Unicode counts as the end of a line.
            text = Path(payload[1:]).read_text(encoding="utf-8")
            lines = [line for line in text.split("\n") if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--payload: {error}") from error
    if not lines:
        raise ConfigurationError("--payload: the file is empty")
    try:
        return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"--payload takes a JSON object: {error}") from error


def show(console: Console, report: LoadReport) -> None:
    """Prints a report as a table."""
    table = Table(show_header=False, box=None)
    table.add_row("requests per second", Text(f"{report.rate:,.1f}", style="bold"))
    table.add_row("answers", f"{report.completed:,} in {report.duration:g} s")
    for name, value in report.latency_ms.items():
        table.add_row(f"latency {name}", f"{value:,.2f} ms")
    for status, count in sorted(report.statuses.items()):
        table.add_row(f"status {status}", f"{count:,}")
    for reason, count in report.errors.items():
        table.add_row(Text(reason, style="red"), f"{count:,}")
    console.print(table)
