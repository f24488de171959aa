"""`inferstack bench`: load on a running inferstack, and what it did with it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from inferstack.client.load import Load, LoadReport, run_blocking
from inferstack.errors import ConfigurationError, InferstackError

DEFAULT_PAYLOAD = '{"text": "The quick brown fox jumps over the lazy dog near the river bank."}'


def bench(
    url: Annotated[str, typer.Option(help="Where the API is.")] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="The default model if left out.")] = None,
    version: Annotated[int | None, typer.Option(help="The newest one if left out.")] = None,
    payload: Annotated[
        str, typer.Option(help="A request's `data` as JSON, or @FILE with one per line.")
    ] = DEFAULT_PAYLOAD,
    connections: Annotated[int, typer.Option(min=1, max=10_000)] = 64,
    duration: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds.")] = 10.0,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Requests per second; as fast as it can if none.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for results; 0 only submits.")
    ] = 30.0,
    token: Annotated[
        str | None, typer.Option(help="An access token or API key.", envvar="INFERSTACK_TOKEN")
    ] = None,
    allow_remote: Annotated[bool, typer.Option(help="Load another machine than this.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Sends requests for a while and prints the rate, the latencies and the errors."""
    console = Console(stderr=as_json)
    try:
        load = Load(
            url=f"{url.rstrip('/')}/api/inference",
            bodies=bodies(payload, model, version),
            headers=headers(token, wait),
            connections=connections,
            duration=duration,
            rate=rate,
            timeout=max(wait, 5.0),
            allow_remote=allow_remote,
        )
        report = run_blocking(load)
    except InferstackError as error:
        Console(stderr=True).print(f"[red]{error.detail}[/red]", highlight=False)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        show(console, report)
    if report.failed:
        raise typer.Exit(1)


def bodies(payload: str, model: str | None, version: int | None) -> list[bytes]:
    """The JSON bodies to send in turn.

    Args:
        payload: one `data` object as JSON, or `@` and a file with one on each line.
        model: the model's name; left out of the body if None.
        version: likewise.

    Raises:
        ConfigurationError: a payload is no JSON object, or the file cannot be read.
    """
    lines = [payload]
    if payload.startswith("@"):
        try:
            lines = [line for line in Path(payload[1:]).read_text().splitlines() if line.strip()]
        except OSError as error:
            raise ConfigurationError(f"--payload: {error}") from error
    if not lines:
        raise ConfigurationError("--payload: the file is empty")
    return [_body(line, model, version) for line in lines]


def _body(line: str, model: str | None, version: int | None) -> bytes:
    try:
        data = msgspec.json.decode(line, type=dict)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"--payload takes a JSON object: {error}") from error
    body = {"data": data, "model": model, "model_version": version}
    return msgspec.json.encode({key: value for key, value in body.items() if value is not None})


def headers(token: str | None, wait: float) -> dict[str, str]:
    """The headers of every request."""
    found = {"Prefer": f"wait={wait:g}"} if wait else {}
    if token:
        found["Authorization"] = f"Bearer {token}"
    return found


def show(console: Console, report: LoadReport) -> None:
    """Prints a report as a table."""
    table = Table(show_header=False, box=None)
    table.add_row("requests per second", f"[bold]{report.rate:,.1f}[/bold]")
    table.add_row("answers", f"{report.completed:,} in {report.duration:g} s")
    for name, value in report.latency_ms.items():
        table.add_row(f"latency {name}", f"{value:,.2f} ms")
    for status, count in sorted(report.statuses.items()):
        table.add_row(f"status {status}", f"{count:,}")
    for reason, count in report.errors.items():
        table.add_row(f"[red]{reason}[/red]", f"{count:,}")
    console.print(table)
