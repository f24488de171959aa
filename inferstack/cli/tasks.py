"""`inferstack infer`, `tasks` and `models`: the SDK on the command line."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table

from inferstack.cli import place
from inferstack.cli.output import WIDE, answers, as_json, errors, table
from inferstack.client import Client, ClientError, Task, TaskNotCompletedError, TaskPage
from inferstack.errors import InvalidRequestError
from inferstack.task import Priority, TaskState

Url = Annotated[
    str | None,
    typer.Option(
        envvar="INFERSTACK_URL", help="Where the API is; the stack of this folder if left out."
    ),
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
    """Runs a model on one input and prints the result.

    The credentials are those in INFERSTACK_TOKEN or INFERSTACK_API_KEY. A stack on this machine
    needs none, unless AUTH_REQUIRED is set.
    """
    options: dict[str, Any] = {"model": model, "model_version": version}
    options |= {"priority": priority, "timeout": timeout}
    with connect(url) as client:
        # Not `client.infer`: once the task has an id, whatever breaks the wait can name it.
        receipt = client.submit(_input(text, data), **options)
        if submit:
            as_json(receipt) if json else answers.print(receipt.task_id)
            return
        task = _wait(client, receipt.task_id)
    if task.status is not TaskState.COMPLETED:
        raise ClientError(_ending(task, timeout), task_id=task.task_id)
    as_json(task if json else task.result)


def tasks(
    task_id: Annotated[str | None, typer.Argument(help="Show this one in full.")] = None,
    status: Annotated[TaskState | None, typer.Option(help="Only tasks in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only tasks of this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Tasks to list at most.")] = 20,
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
    answers.print(task_table(page, wide=answers.width >= WIDE))


def models(json: Json = False, url: Url = None) -> None:
    """Lists the models and versions that are served."""
    with connect(url) as client:
        found = client.models()
    if json:
        as_json(found)
        return
    shown = table("model", "version", "state", folded=("engine", "task", "reason"))
    for item in found:
        rest = (item.state, item.engine or "", item.task or "", item.reason or "")
        shown.add_row(item.model, str(item.version), *rest)
    answers.print(shown)


def task_table(page: TaskPage, *, wide: bool) -> Table:
    """Tasks with whole ids.

    Args:
        page: the tasks.
        wide: whether there is room for the priority, and the year and second of creation.
    """
    more = ("priority",) if wide else ()
    shown = table("task", "status", "created", "seconds", *more, folded=("model",))
    for task in page.tasks:
        form = "%Y-%m-%d %H:%M:%S" if wide else "%m-%d %H:%M"
        created = f"{task.created_at:{form}}" if task.created_at else ""
        seconds = "" if task.processing_time is None else f"{task.processing_time:.3f}"
        rest = (str(task.priority),) if wide else ()
        name = f"{task.model}:{task.model_version}"
        shown.add_row(task.task_id, task.status, created, seconds, *rest, name)
    return shown


def connect(url: str | None) -> Client:
    """A client of the API at a URL, or of the stack that runs here."""
    return Client(place.api_url(url))


def _wait(client: Client, task_id: str) -> Task:
    """The finished task; what keeps it from being seen tells by which id it is found again."""
    later = f"the task lives on: `inferstack tasks {task_id}`"
    try:
        return client.wait(task_id)
    except ClientError as error:
        raise ClientError(f"{error}; {later}", task_id=task_id) from error
    except KeyboardInterrupt:
        errors.print(later[0].upper() + later[1:], soft_wrap=True)
        raise


def _ending(task: Task, timeout: float) -> str:
    if task.status is TaskState.EXPIRED:
        return f"expired: no result within {timeout:g} s (--timeout); task {task.task_id}"
    return str(TaskNotCompletedError(task))


def _input(text: str | None, data: str | None) -> dict[str, Any]:
    """The input from what was given, which must be exactly one of the two."""
    if (text is None) == (data is None):
        raise InvalidRequestError("give a text, or --data with a JSON object")
    if text is not None:
        return {"text": _standard_input() if text == "-" else text}
    raw = (data or "").strip()
    try:
        body = Path(raw[1:]).read_bytes() if raw.startswith("@") else raw
        decoded: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except OSError as error:
        raise InvalidRequestError(f"--data: cannot read {raw[1:]}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(f"--data takes a JSON object: {error}") from None
    return decoded


def _standard_input() -> str:
    # As `$(...)` does: the line break with which `echo` ends is not part of the text.
    try:
        return typer.get_text_stream("stdin").read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidRequestError("standard input is not UTF-8") from None
