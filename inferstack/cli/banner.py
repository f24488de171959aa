"""What `up` and `status` print."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inferstack.config import Settings
from inferstack.local.overview import Report
from inferstack.local.state import StackState

STYLES = {"running": "green", "ready": "green", "failed": "red", "waiting": "red"}


def show(console: Console, state: StackState, settings: Settings, *, detached: bool) -> None:
    """Prints where everything is and a first request to paste.

    Args:
        console: where to.
        state: the running stack.
        settings: with the administrator's password.
        detached: whether the command ends now while the stack runs on.
    """
    password = settings.admin_password.get_secret_value() if settings.admin_password else ""
    table = Table.grid(padding=(0, 2))
    table.add_row("API", f"[bold cyan]{state.url}[/]")
    table.add_row("Docs", f"[cyan]{state.url}/api/docs[/]")
    table.add_row("Login", f"{escape(settings.admin_username)} / {escape(password)}")
    table.add_row("Logs", escape(str(settings.inferstack_home / "logs")))
    for step in state.steps:
        if step.name == "model":
            table.add_row("Model", escape(step.text))
    console.print("\n[bold green]inferstack is up[/]\n")
    console.print(table)
    for note in state.notes:
        console.print(f"\n{note}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nTry it:\n")
    console.print(_curl(state, settings), markup=False, highlight=False, soft_wrap=True)
    last = "Stop it with `inferstack down`." if detached else "Ctrl-C stops it."
    console.print(f"\n{last}\n", markup=False)


def status(console: Console, report: Report) -> None:
    """Prints a report as tables."""
    console.print(f"[bold]inferstack[/] {report.phase} at [cyan]{report.url}[/], {report.health}")
    processes = Table("process", "state", "pid", "port", "restarts", box=None)
    for child in report.processes:
        processes.add_row(
            child.name,
            _styled(child.phase),
            _text(child.pid),
            _text(child.port),
            f"{child.restarts}",
        )
    console.print(processes)
    if not report.deployments:
        return
    deployments = Table(
        "deployment", "state", "replicas", "waiting", "running", "not archived", box=None
    )
    for item in report.deployments:
        counts = (item.replicas, item.waiting, item.running, item.outbox)
        deployments.add_row(item.name, _styled(item.state), *(f"{count:,}" for count in counts))
    console.print(deployments)
    for item in report.deployments:
        if item.reason:
            console.print(f"{item.name}: {item.reason}", markup=False, soft_wrap=True)


def _curl(state: StackState, settings: Settings) -> str:
    # Bearer tokens are needed only where anonymous callers are not let in.
    header = "  -H 'Authorization: Bearer '$TOKEN \\\n" if settings.auth_required else ""
    return (
        f"curl -s {state.url}/api/inference \\\n{header}"
        "  -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\\n"
        '  -d \'{"data": {"text": "Hello, world!"}}\''
    )


def _styled(word: str) -> str:
    return f"[{STYLES.get(word, 'yellow')}]{word}[/]"


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
