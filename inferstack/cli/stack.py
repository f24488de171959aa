"""`inferstack up`, `down` and `status`: the embedded stack."""

import logging
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from inferstack import config
from inferstack.cli import banner, place
from inferstack.cli.output import ToConsole, answers, as_json, errors
from inferstack.config import Settings
from inferstack.local import control, overview
from inferstack.local.display import Display
from inferstack.local.home import Home
from inferstack.local.state import Phase, StackState

STOPPING = "Stopping: running batches are finished first; Ctrl-C again ends them now."


def up(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The API's port; default: $PORT, else 8000."),
    ] = None,
    api_processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="API processes that share the port.")
    ] = None,
    ray: Annotated[
        bool,
        typer.Option("--ray/--no-ray", help="Run replicas in Ray Serve, or as plain processes."),
    ] = True,
    detach: Annotated[
        bool, typer.Option(help="Return once it is up, and leave it running.")
    ] = False,
    show_banner: Annotated[bool, typer.Option("--banner/--no-banner", hidden=True)] = True,
) -> None:
    """Starts everything on this machine: Redis, PostgreSQL, models, API."""
    chosen: dict[str, Any] = {"port": port, "api_processes": api_processes}
    wanted = config.load(**{name: value for name, value in chosen.items() if value is not None})
    for line in config.misspelt():
        errors.print(line, soft_wrap=True)
    home = Home(wanted.inferstack_home)
    with Display(errors) as display:
        if detach:
            # Its output goes to a file, where the password in the banner does not belong.
            arguments = ["up", "--no-banner", "--ray" if ray else "--no-ray"]
            state = control.run_detached(home, wanted, arguments, display.update)
            display.settle()
            _banner(home, wanted, state, detached=True)
            return
        _log_restarts()
        show = _Shown(home, wanted, display, show_banner)
        control.run(home, wanted, ray=ray, show=show)


def down() -> None:
    """Stops what `up` started, after it has drained; also what a killed `up` has left."""
    home = place.home()
    if control.running(home):
        errors.print("Stopping: running batches are finished first; Ctrl-C ends them now.")
    elif left := control.left(home):
        errors.print(f"Its supervisor is gone. Ending what it left: {', '.join(left)}.")
    with Display(errors) as display:
        stopped = control.stop(
            home, lambda state: display.update(replace(state, steps=state.stops))
        )
    answers.print("Stopped." if stopped else control.absence(home), soft_wrap=True)


def status(
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Shows processes, ports, health, deployments and queues; exit status 1 if it is down."""
    home = place.home()
    state = control.running(home)
    if state is None:
        _show_absence(home, json)
        raise typer.Exit(1)
    report = overview.collect(state)
    if json:
        as_json(report)
    else:
        banner.status(answers, report)
    if not report.healthy:
        raise typer.Exit(1)


def _show_absence(home: Home, json: bool) -> None:
    left = control.left(home)
    if json:
        phase = "unsupervised" if left else "down"
        as_json({"phase": phase, "healthy": False, "running": left})
    elif left:
        answers.print(
            f"The supervisor is gone, but these still run in {home.root}: {', '.join(left)}.\n"
            "`inferstack down` ends them, `inferstack up` takes over.",
            soft_wrap=True,
        )
    else:
        answers.print(control.absence(home), soft_wrap=True)


def _log_restarts() -> None:
    """Has the deaths and restarts of children told, in the terminal or in supervisor.log."""
    log = logging.getLogger("inferstack.local")
    log.addHandler(ToConsole(errors))
    log.setLevel(logging.INFO)
    log.propagate = False


def _banner(home: Home, wanted: Settings, state: StackState, *, detached: bool) -> None:
    chosen = wanted.admin_password is not None
    settings = control.known_settings(home, wanted)
    banner.show(answers, state, settings, chosen=chosen, detached=detached)


class _Shown:
    """Passes the state on to the display, and says once that it is up and once that it stops."""

    def __init__(self, home: Home, wanted: Settings, display: Display, show_banner: bool) -> None:
        self._home = home
        self._wanted = wanted
        self._display = display
        self._pending = show_banner
        self._stopping = False

    def __call__(self, state: StackState) -> None:
        if state.phase is Phase.STOPPING and not self._stopping:
            self._stopping = True
            # A start that failed stops as well, but nobody asked for that.
            if not any(step.failed for step in state.steps):
                errors.print(STOPPING)
        self._display.update(state)
        if state.phase is Phase.READY and self._pending:
            self._pending = False
            self._display.settle()
            _banner(self._home, self._wanted, state, detached=False)
