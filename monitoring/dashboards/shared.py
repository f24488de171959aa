"""Queries and panels that several dashboards show."""

from collections.abc import Sequence

from monitoring.dashboards.model import Panel, Query
from monitoring.dashboards.promql import OF_MODEL, of_queue, or_none, quantile, rate

DEPLOYMENT = "model, version"
"""The labels of a deployment."""
NAME = "{{model}}:{{version}}"
"""Its name in a legend."""
PROCESS = "instance, process"
"""The labels of a process: containers number theirs alike."""
PROCESS_NAME = "{{instance}} {{process}}"
"""Its name in a legend."""
WAITING = of_queue("queue_depth", f"{DEPLOYMENT}, priority")
"""Waiting tasks of each deployment and priority."""


def lines(series: str, by: str, where: str = "") -> Query:
    """Per second, a line for each value of a label; arguments as of `rate`."""
    return Query(rate(series, by, where), _legend(by))


def lines_or_none(series: str, by: str, where: str = "") -> Query:
    """The same of something bad, with a zero while it has never happened."""
    return Query(or_none(rate(series, by, where), by), _legend(by))


def quantiles(
    shares: Sequence[float], histogram: str, by: str = "", where: str = "", name: str = ""
) -> list[Query]:
    """A line for each share; the other arguments as of `quantile`.

    Args:
        shares: 0 to 1.
        histogram: its name.
        by: labels to keep apart.
        where: which of its series.
        name: what the legend says before the share.
    """
    return [
        Query(quantile(share, histogram, by, where), f"{name} p{share * 100:g}".lstrip())
        for share in shares
    ]


def _legend(label: str) -> str:
    return f"{{{{{label}}}}}"


REPEATED = Panel(
    "Attempts that are repeated",
    "`error`: it failed. `lease`: its replica fell silent.",
    [lines_or_none("inferstack_task_retries_total", "reason", OF_MODEL)],
    "ops",
)
