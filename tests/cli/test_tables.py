"""Tables in a terminal of 80 columns: ids stay whole, and texts stay what they are."""

import io
from datetime import UTC, datetime

from rich.console import Console, RenderableType

from inferstack.cli import banner
from inferstack.cli.accounts import key_table
from inferstack.cli.output import table
from inferstack.cli.tasks import task_table
from inferstack.client import Task, TaskPage
from inferstack.local.overview import DeploymentReport, ProcessReport, Report
from inferstack.storage.accounts import ApiKey
from inferstack.task import Priority, TaskState

ID = "01a20cea-168c-7f65-9a10-c8979ffd848e"


def printed(what: RenderableType, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, markup=False, emoji=False).print(what)
    return file.getvalue().splitlines()


def test_keys_fit_with_whole_ids_and_names_as_they_are() -> None:
    key = ApiKey(
        id=ID,
        name="[/x] nightly job :smile:",
        prefix="is_abcdef",
        username="ada.lovelace",
        tenant="[red]engines",
        role="user",
        created_at=0.0,
        revoked_at=86_400.0,
    )
    lines = printed(key_table([key], wide=False))
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith(f"{ID}  is_abcdef  1970-01-02  ")
    assert "[/x]" in lines[1]
    wide = printed(key_table([key], wide=True), width=160)
    assert len(wide) == 2
    for text in (ID, "1970-01-01", "1970-01-02", key.name, key.username, key.tenant):
        assert text in wide[1]


def test_tasks_fit_with_whole_ids() -> None:
    task = Task(
        task_id=ID,
        status=TaskState.COMPLETED,
        model="a-model-with-a-long-name",
        model_version=12,
        priority=Priority.NORMAL,
        created_at=datetime(2026, 1, 5, 9, 30, tzinfo=UTC),
        processing_time=12.5,
    )
    lines = printed(task_table(TaskPage((task,)), wide=False))
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith(f"{ID}  completed  01-05 09:30  12.500   a-model")
    wide = printed(task_table(TaskPage((task,)), wide=True), width=160)
    assert "2026-01-05 09:30:00  12.500   normal    a-model-with-a-long-name:12" in wide[1]


def test_a_long_reason_is_folded_and_loses_nothing() -> None:
    shown = table("model", folded=("reason",))
    reason = "[/x] [red]" + "x" * 200 + "[/red]"
    shown.add_row("bad", reason)
    assert "".join(line[7:].strip() for line in printed(shown)[1:]) == reason.replace(" ", "")


def test_the_status_shows_reasons_as_they_are() -> None:
    report = Report(
        url="http://127.0.0.1:8000",
        phase="ready",
        health="takes requests",
        healthy=True,
        processes=[ProcessReport("api", "running", 1, 8000, 0)],
        deployments=[
            DeploymentReport("bad:1", "failed", "[/x] KeyError: 'a[b]'", "closed", 0, 0, 0, 0),
            DeploymentReport("ill:2", "ready", None, "half-open", 1, 0, 0, 0),
        ],
    )
    file = io.StringIO()
    banner.status(Console(file=file, width=80, markup=False), report)
    assert "bad:1: [/x] KeyError: 'a[b]'" in file.getvalue()
    assert "ready, circuit half-open" in file.getvalue()
