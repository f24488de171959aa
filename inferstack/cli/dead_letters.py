"""`inferstack dead-letters`: failed tasks, and what to do with them."""

from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Annotated

import typer
from rich.table import Table

from inferstack.cli.output import answers, as_json, errors, table
from inferstack.cli.tasks import Json, Url, connect
from inferstack.client import Client, DeadLetter, Problem, RedriveReceipt
from inferstack.errors import InvalidRequestError

MOST = 1000
"""Dead letters that one request redrives or removes; more take several."""

letters = typer.Typer(help="Failed tasks: look, redrive, purge.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(help="These tasks.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every one, or every one that matches.")]
Model = Annotated[str | None, typer.Option(help="Of this model only.")]
ErrorType = Annotated[str | None, typer.Option(help="With this type of error only.")]


@letters.command("list")
def list_letters(
    everything: Annotated[bool, typer.Option("--all", help="All pages.")] = False,
    model: Model = None,
    error: ErrorType = None,
    since: Annotated[datetime | None, typer.Option(help="Failed then or later.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    json: Json = False,
    url: Url = None,
) -> None:
    """Lists failed tasks, the latest failure first."""
    with connect(url) as client:
        pages = _pages(client, 200 if everything else limit, model, error, since)
        found = [*chain.from_iterable(pages)] if everything else next(pages)
    as_json(found) if json else answers.print(_table(found))


@letters.command("show")
def show(task_id: str, url: Url = None) -> None:
    """Shows one failed task in full, as JSON."""
    with connect(url) as client:
        as_json(client.dead_letter(task_id))


@letters.command("redrive")
def redrive(
    task_ids: Ids = None,
    everything: All = False,
    model: Model = None,
    error: ErrorType = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Submits failed tasks again as new ones; prints the new ids."""
    named = _named(task_ids, everything, model, error)
    with connect(url) as client:
        if everything:
            # Listed first: one that fails again or is refused must not be redriven again and again.
            listed = chain.from_iterable(_pages(client, 200, model, error))
            named = [letter.task_id for letter in listed][::-1]
        done = [*_redriven(client, named)]
    accepted = [item for item in done if isinstance(item, RedriveReceipt)]
    if json:
        as_json(accepted)
    for receipt in () if json else accepted:
        answers.print(f"{receipt.redrive_of} -> {receipt.task_id}", soft_wrap=True)
    refused = [item for item in done if isinstance(item, Problem)]
    for problem in refused:
        text = f"{problem.task_id}: {problem}"
        errors.print(text, style="red", soft_wrap=True)
    if refused:
        raise typer.Exit(1)


@letters.command("purge")
def purge(
    task_ids: Ids = None,
    everything: All = False,
    model: Model = None,
    error: ErrorType = None,
    before: Annotated[datetime | None, typer.Option(help="Failed earlier.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
) -> None:
    """Removes failed tasks and their inputs for good."""
    named = _named(task_ids, everything, model, error, before)
    if not yes:
        what = f"{len(named)} failed task(s)" if named else "every failed task that matches"
        typer.confirm(f"Remove {what} for good?", abort=True)
    count, more = 0, not named
    with connect(url) as client:
        for task_id in named:
            count += client.purge(task_id).purged
        while more:
            purged = client.purge(
                model=model, error=error, before=before, limit=MOST, everything=True
            )
            count, more = count + purged.purged, purged.more
    answers.print(f"Removed {count}.")


def _named(task_ids: list[str] | None, everything: bool, *filters: object) -> list[str]:
    """The ids that were given; none with `--all`."""
    if bool(task_ids) == everything:
        raise InvalidRequestError("give the ids of tasks, or --all")
    if task_ids and any(given is not None for given in filters):
        raise InvalidRequestError("filters go with --all, not with ids")
    return task_ids or []


def _redriven(client: Client, task_ids: list[str]) -> Iterator[RedriveReceipt | Problem]:
    for start in range(0, len(task_ids), MOST):
        yield from client.redrive_many(task_ids[start : start + MOST])


def _pages(
    client: Client,
    limit: int,
    model: str | None,
    error: str | None,
    since: datetime | None = None,
) -> Iterator[list[DeadLetter]]:
    """Page by page, the latest failure first."""
    cursor = None
    while True:
        page = client.dead_letters(
            model=model, error=error, since=since, limit=limit, cursor=cursor
        )
        yield [*page.dead_letters]
        if (cursor := page.next_cursor) is None:
            return


def _table(found: list[DeadLetter]) -> Table:
    shown = table("task", "failed", "attempts", folded=("model", "error", "message"))
    for letter in found:
        failed = f"{letter.failed_at:%Y-%m-%d %H:%M:%S}" if letter.failed_at else ""
        kind, message = (letter.error.type, letter.error.message) if letter.error else ("", "")
        name = f"{letter.model}:{letter.model_version}"
        text = " ".join(message.split())
        shown.add_row(letter.task_id, failed, str(letter.attempts), name, kind, text)
    return shown
