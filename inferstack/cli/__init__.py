"""The command line: `inferstack ...`."""

import sys
from typing import Annotated

import typer

from inferstack import __version__
from inferstack.cli import accounts, backup, bench, database, dead_letters, stack, tasks
from inferstack.cli.output import errors
from inferstack.errors import InferstackError

app = typer.Typer(
    name="inferstack",
    help="Durable AI inference on your own machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(stack.up)
app.command()(stack.down)
app.command()(stack.status)
app.command()(database.migrate)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(tasks.infer)
app.command()(tasks.tasks)
app.command()(tasks.models)
app.command()(bench.bench)
app.add_typer(dead_letters.letters, name="dead-letters")
app.add_typer(accounts.users, name="users")
app.add_typer(accounts.keys, name="keys")


@app.command()
def version() -> None:
    """Prints the version."""
    typer.echo(f"inferstack {__version__}")


def _version_and_exit(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_version_and_exit, help="Print the version."
        ),
    ] = False,
) -> None:
    """Durable AI inference on your own machines."""


def main() -> None:
    """Runs a command; what goes wrong on purpose is told in one line, with exit status 1."""
    try:
        app()
    except InferstackError as error:
        errors.print(str(error), style="red", soft_wrap=True)
        sys.exit(1)
