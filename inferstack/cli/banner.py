"""What `up` and `status` print."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferstack.cli.output import table
from inferstack.config import Settings
from inferstack.deployment import Circuit
from inferstack.local.overview import DeploymentReport, Report
from inferstack.local.state import StackState

STYLES = {"running": "green", "ready": "green", "failed": "red", "waiting": "red", "dead": "red"}


def show(
    console: Console, state: StackState, settings: Settings, *, chosen: bool, detached: bool
) -> None:
    """Prints where everything is and a first request to paste.

    Args:
        console: where to.
        state: the running stack.
        settings: with the administrator's password.
        chosen: whether the user chose that password: it is not printed then, since this may be
            the log of a build.
        detached: whether the command ends now while the stack runs on.
    """
    generated = settings.admin_password.get_secret_value() if settings.admin_password else ""
    password = "the password in ADMIN_PASSWORD" if chosen else generated
    places = Table.grid(padding=(0, 2))
    if settings.ui_path is not None:
        places.add_row("Web UI", Text(f"{state.url}/", style="bold cyan"))
    places.add_row("API", Text(state.url, style="bold cyan"))
    places.add_row("Docs", Text(f"{state.url}/api/docs", style="cyan"))
    places.add_row("Login", f"{settings.admin_username} / {password}")
    places.add_row("Logs", str(settings.inferstack_home / "logs"))
    for step in state.steps:
        if step.name == "model":
            places.add_row("Model", step.text)
    console.print("\ninferstack is up\n", style="bold green")
    console.print(places)
    for note in state.notes:
        console.print(f"\n{note}", soft_wrap=True)
    if state.problems:
        console.print()
    for problem in state.problems:
        console.print(problem, style="red", soft_wrap=True)
    console.print("\nTry it:\n")
    curl = _curl(state, settings, "$ADMIN_PASSWORD" if chosen else generated)
    console.print(curl, soft_wrap=True)
    last = "Stop it with `inferstack down`." if detached else "Ctrl-C stops it."
    console.print(f"\n{last}\n")


def status(console: Console, report: Report) -> None:
    """Prints a report as tables."""
    head = Text.assemble(
        ("inferstack", "bold"), f" {report.phase} at ", (report.url, "cyan"), f", {report.health}"
    )
    console.print(head, soft_wrap=True)
    processes = table("process", "state", "pid", "port", "restarts")
    for child in report.processes:
        numbers = (_text(child.pid), _text(child.port), f"{child.restarts}")
        processes.add_row(child.name, _styled(child.phase), *numbers)
    console.print(processes)
    if not report.deployments:
        return
    columns = ("state", "replicas", "waiting", "running", "not archived")
    deployments = table("deployment", *columns)
    for item in report.deployments:
        counts = (item.replicas, item.waiting, item.running, item.outbox)
        deployments.add_row(item.name, _state(item), *(f"{count:,}" for count in counts))
    console.print(deployments)
    for item in report.deployments:
        if item.reason:
            reason = item.reason.removeprefix(f"{item.name}: ")
            console.print(f"{item.name}: {reason}", soft_wrap=True)


def _curl(state: StackState, settings: Settings, password: str) -> str:
    login = header = ""
    # Tokens are needed only where anonymous callers are not let in.
    if settings.auth_required:
        header = "  -H 'Authorization: Bearer '$TOKEN \\\n"
        user = settings.admin_username
        login = (
            f"TOKEN=$(curl -s {state.url}/api/auth/login \\\n"
            f"  --data-urlencode 'username={user}' --data-urlencode \"password={password}\" \\\n"
            '  | sed \'s/.*"access_token":"\\([^"]*\\)".*/\\1/\')\n'
        )
    return (
        f"{login}curl -s {state.url}/api/inference \\\n{header}"
        "  -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\\n"
        '  -d \'{"data": {"text": "Hello, world!"}}\''
    )


def _state(item: DeploymentReport) -> Text:
    if item.circuit == Circuit.CLOSED:
        return _styled(item.state)
    return Text(f"{item.state}, circuit {item.circuit}", style="red")


def _styled(word: str) -> Text:
    return Text(word, style=STYLES.get(word, "yellow"))


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
