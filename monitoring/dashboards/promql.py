"""Pieces of PromQL that dashboards share."""

WINDOW = "$__rate_interval"
"""Grafana's window for rates: at least four scrapes."""
OF_MODEL = 'model=~"$model"'


def rate(series: str, by: str = "", where: str = "") -> str:
    """Per second, added up over the processes.

    Args:
        series: a counter.
        by: labels to keep apart, by commas; everything together if empty.
        where: which of its series.
    """
    return f"{_sum(by)}(rate({series}{_braces(where)}[{WINDOW}]))"


def or_none(expr: str, label: str) -> str:
    """The same, or a zero called `none` while there is no such series: nothing bad happened yet."""
    return f'{expr} or label_replace(vector(0), "{label}", "none", "", "")'


def or_zero(expr: str) -> str:
    """The same, or zero while there is no such series."""
    return f"{expr} or vector(0)"


def quantile(share: float, histogram: str, by: str = "", where: str = "") -> str:
    """The value below which a share of what was observed lies.

    Args:
        share: 0 to 1.
        histogram: its name, without `_bucket`.
        by: labels to keep apart, by commas.
        where: which of its series.
    """
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share:g}, {rate(f'{histogram}_bucket', labels, where)})"


def mean(histogram: str, by: str = "", where: str = "") -> str:
    """The mean of what was observed; nothing while nothing was.

    Args:
        histogram: its name, without `_sum`.
        by: labels to keep apart, by commas.
        where: which of its series.
    """
    return f"{rate(f'{histogram}_sum', by, where)} / {rate(f'{histogram}_count', by, where)}"


def of_queue(gauge: str, by: str = "model, version") -> str:
    """A value of the queues: every API process shows it, so it is taken once.

    Args:
        gauge: its name.
        by: the labels that make it one value.
    """
    return f"max by ({by}) ({gauge}{{{OF_MODEL}}})"


def queue_rate(counter: str) -> str:
    """Per second, of what Redis counts for each deployment: every API process shows it."""
    return f"max by (model, version) (rate({counter}{{{OF_MODEL}}}[{WINDOW}]))"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"


def _braces(where: str) -> str:
    return f"{{{where}}}" if where else ""
