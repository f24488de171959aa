"""What a dashboard is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["timeseries", "stat"]


class Query(NamedTuple):
    """One line of a panel, or several if its labels differ."""

    expr: str
    """PromQL."""
    legend: str = ""
    """With labels in double braces."""


class Threshold(NamedTuple):
    """From which value on a number is shown in a colour."""

    value: float
    color: str


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    text: str
    """What it shows and how to read it, for whoever points at it."""
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None
    """The end of the axis; by the values if None."""
    thresholds: Sequence[Threshold] = ()


class Row(NamedTuple):
    """Panels below one heading."""

    title: str
    panels: Sequence[Panel]


class Variable(NamedTuple):
    """A choice at the top of a dashboard: all values of a label at first."""

    name: str
    series: str
    """Where its values come from."""


MODEL = Variable("model", "queue_depth")


@dataclass(frozen=True)
class Dashboard:
    """One page."""

    title: str
    text: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = (MODEL,)

    @property
    def uid(self) -> str:
        """Its address in Grafana, and the name of its file."""
        return f"inferstack-{self.title.lower().replace(' ', '-')}"

    @property
    def panels(self) -> list[Panel]:
        """All of them, in the order of the page."""
        return [panel for row in self.rows for panel in row.panels]
