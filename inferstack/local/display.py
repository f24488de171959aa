"""The progress of a start or a stop: live on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from inferstack.local.state import StackState, Step


class Display:
    """Shows the steps of a state as they begin and end."""

    def __init__(self, console: Console) -> None:
        """Shows nothing yet.

        Args:
            console: where to; whether it is a terminal decides the form.
        """
        self._console = console
        self._live: Live | None = None
        self._printed = 0
        self._steps: list[Step] = []

    def update(self, state: StackState) -> None:
        """Shows what has changed."""
        self._steps = list(state.steps)
        if self._live is not None:
            self._live.update(_table(self._steps))
            return
        while self._printed < len(self._steps) and _over(self._steps[self._printed]):
            step = self._steps[self._printed]
            self._console.print(_plain(step), markup=False, highlight=False, soft_wrap=True)
            self._printed += 1

    def settle(self) -> None:
        """Leaves what is shown where it is; steps to come start below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._printed = len(self._steps)

    def __enter__(self) -> Self:
        """Starts to show."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=10)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops to show."""
        self.settle()


def _over(step: Step) -> bool:
    return step.done or step.failed


def _plain(step: Step) -> str:
    text = "failed" if step.failed else step.text or "done"
    return f"{step.name}: {text} ({step.seconds:.1f} s)"


def _table(steps: list[Step]) -> Table:
    table = Table.grid(padding=(0, 1))
    for step in steps:
        time = Text(f"{step.seconds:.1f} s" if _over(step) else "", style="dim")
        table.add_row(_mark(step), Text(step.name, style="bold"), Text(step.text), time)
    return table


def _mark(step: Step) -> Text | Spinner:
    if step.failed:
        return Text("✗", style="red")
    return Text("✓", style="green") if step.done else Spinner("dots", style="cyan")
