"""`inferstack infer`, `tasks` and `models`: the SDK on the command line."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from inferstack import config
from inferstack.cli.output import answers, as_json
from inferstack.client import Client
from inferstack.errors import InvalidRequestError
from inferstack.local.control import running
from inferstack.local.home import Home
from inferstack.task import Priority, TaskState

Url = Annotated[
    str | None,
    typer.Option(envvar="INFERSTACK_URL", help="Where the API is; the one of `up` if left out."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


def infer(
    text: Annotated[
        str | None, typer.Argument(help='Sent as {"text": ...}; `-` reads standard input.')
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The whole input as a JSON object, or @FILE with one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The default model if left out.")] = None,
    version: Annotated[int | None, typer.Option(help="The newest one if left out.")] = None,
    priority: Annotated[Priority, typer.Option()] = Priority.NORMAL,
    timeout: Annotated[float, typer.Option(help="Seconds until the task expires.")] = 60.0,
    submit: Annotated[bool, typer.Option("--submit", help="Do not wait for the result.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Runs a model on one input and prints the result."""
    options: dict[str, Any] = {"model": model, "model_version": version}
    options |= {"priority": priority, "timeout": timeout}
    with connect(url) as client:
        if submit:
            receipt = client.submit(_input(text, data), **options)
            as_json(receipt) if json else answers.print(receipt.task_id)
            return
        task = client.infer(_input(text, data), **options)
    as_json(task if json else task.result)


def tasks(
    task_id: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
    status: Annotated[TaskState | None, typer.Option()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the task.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Lists the newest tasks, or shows or cancels one."""
    if cancel and task_id is None:
        raise InvalidRequestError("--cancel needs the id of a task")
    with connect(url) as client:
        if task_id is not None:
            as_json(client.cancel(task_id) if cancel else client.get(task_id))
            return
        page = client.list(status=status, model=model, limit=limit)
    if json:
        as_json(page.tasks)
        return
    table = Table("task", "status", "model", "priority", "created", "seconds", box=None)
    for task in page.tasks:
        created = f"{task.created_at:%Y-%m-%d %H:%M:%S}" if task.created_at else ""
        seconds = "" if task.processing_time is None else f"{task.processing_time:.3f}"
        name = f"{task.model}:{task.model_version}"
        table.add_row(task.task_id, task.status, name, task.priority, created, seconds)
    answers.print(table)


def models(json: Json = False, url: Url = None) -> None:
    """Lists the models and versions that are served."""
    with connect(url) as client:
        found = client.models()
    if json:
        as_json(found)
        return
    table = Table("model", "version", "state", "engine", "task", "reason", box=None)
    for item in found:
        rest = (item.state, item.engine or "", item.task or "", item.reason or "")
        table.add_row(item.model, str(item.version), *rest)
    answers.print(table)


def connect(url: str | None) -> Client:
    """A client of the API at a URL, or of the stack that runs here."""
    if url is None and (state := running(Home(config.settings().inferstack_home))):
        url = state.url
    return Client(url)


def _input(text: str | None, data: str | None) -> dict[str, Any]:
    """The input from what was given, which must be exactly one of the two."""
    if (text is None) == (data is None):
        raise InvalidRequestError("give a text, or --data with a JSON object")
    if text is not None:
        return {"text": typer.get_text_stream("stdin").read() if text == "-" else text}
    raw = (data or "").strip()
    try:
        body = Path(raw[1:]).read_bytes() if raw.startswith("@") else raw
        decoded: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except OSError as error:
        raise InvalidRequestError(f"--data: cannot read {raw[1:]}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"--data takes a JSON object: {error}") from None
    return decoded
