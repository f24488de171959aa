"""`inferstack up`, `down` and `status`: the embedded stack."""

from typing import Annotated, Any

import typer

from inferstack import config
from inferstack.cli import banner
from inferstack.cli.output import answers, as_json, errors
from inferstack.config import Settings
from inferstack.local import control, overview
from inferstack.local.display import Display
from inferstack.local.home import Home
from inferstack.local.state import Phase, StackState


def up(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The API's port; PORT or 8000.")
    ] = None,
    api_processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="API processes that share the port.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Ray Serve hosts replicas, or plain processes.")
    ] = True,
    detach: Annotated[bool, typer.Option(help="Return once it is up; it runs on.")] = False,
    show_banner: Annotated[bool, typer.Option("--banner/--no-banner", hidden=True)] = True,
) -> None:
    """Starts everything on this machine: Redis, PostgreSQL, models, API."""
    chosen: dict[str, Any] = {"port": port, "api_processes": api_processes}
    wanted = config.load(**{name: value for name, value in chosen.items() if value is not None})
    home = Home(wanted.inferstack_home)
    with Display(errors) as display:
        if detach:
            # Its output goes to a file, where the password in the banner does not belong.
            arguments = ["up", "--no-banner", "--ray" if ray else "--no-ray"]
            state = control.run_detached(home, wanted, arguments, display.update)
            display.settle()
            banner.show(answers, state, control.known_settings(home, wanted), detached=True)
            return
        show = _Shown(home, wanted, display, show_banner)
        control.run(home, wanted, ray=ray, show=show)


def down() -> None:
    """Stops what `up` started, after it has drained."""
    home = Home(config.settings().inferstack_home)
    if control.running(home):
        errors.print("Stopping: running batches are finished first.")
    answers.print("Stopped." if control.stop(home) else "Nothing runs here.")


def status(
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Shows processes, ports, health, deployments and queues; exit status 1 if it is down."""
    home = Home(config.settings().inferstack_home)
    state = control.running(home)
    if state is None:
        answers.print("Nothing runs here. Start it with `inferstack up`.")
        raise typer.Exit(1)
    report = overview.collect(state)
    if json:
        as_json(report)
    else:
        banner.status(answers, report)
    if not report.healthy:
        raise typer.Exit(1)


class _Shown:
    """Passes the state on to the display, and shows the banner once when it is up."""

    def __init__(self, home: Home, wanted: Settings, display: Display, show_banner: bool) -> None:
        self._home = home
        self._wanted = wanted
        self._display = display
        self._pending = show_banner

    def __call__(self, state: StackState) -> None:
        self._display.update(state)
        if state.phase is Phase.READY and self._pending:
            self._pending = False
            self._display.settle()
            settings = control.known_settings(self._home, self._wanted)
            banner.show(answers, state, settings, detached=False)
