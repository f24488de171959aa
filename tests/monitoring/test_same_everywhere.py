"""What every API process shows alike counts once, whoever asks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferstack.telemetry import metrics
from inferstack.telemetry.families import Copied
from monitoring.dashboards import DASHBOARDS
from tests.monitoring.prometheus import CONFIG, ROOT, promtool

ALIKE = {
    family
    for family in vars(metrics).values()
    if isinstance(family, Copied) and family in metrics.API._collector_to_names
}
"""Families that copy what Redis or a check says."""
NAMES = sorted(name for family in ALIKE for name in metrics.API._collector_to_names[family])
ADDS = re.compile(r"\b(sum|count|avg|max|min|quantile|topk|bottomk|stddev)\b")
KEDA = ROOT / "kubernetes" / "components" / "keda" / "gpu-worker.yaml"


def keda_query() -> str:
    (trigger,) = yaml.safe_load(KEDA.read_text())["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def queries() -> Iterator[tuple[str, str]]:
    """Every query of ours, with its place."""
    yield "KEDA", keda_query()
    for path in sorted((CONFIG / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                yield f"{dashboard.title}, {panel.title}", query.expr


def innermost(expr: str, position: int) -> str | None:
    """The aggregation that takes what stands at a position; None if none does.

    >>> innermost("sum(max by (model) (rate(x[1m])))", 26)
    'max'
    """
    depth = 0
    for start in range(position - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(expr[start], 0)
        if depth < 0:
            depth = 0
            head = re.sub(r"\b(by|without)\s*\([^()]*\)\s*$", "", expr[:start].rstrip())
            word = re.search(r"(\w+)\s*$", head)
            if word and ADDS.fullmatch(word[1]):
                return word[1]
    return None


def wrong(expr: str) -> list[str]:
    """Series that are the same everywhere and are not taken once."""
    found = []
    for name in NAMES:
        for match in re.finditer(rf"(?<![\w:]){name}(?![\w:])", expr):
            if innermost(expr, match.start()) not in ("max", "min"):
                found.append(name)
    return found


def test_the_series_are_those_of_the_queues_and_of_the_checks() -> None:
    assert {"queue_depth", "inferstack_queue_replicas", "inferstack_component_up"} <= set(NAMES)
    assert "inferstack_http_connections" not in NAMES


def test_no_query_adds_up_what_every_api_process_shows() -> None:
    looked = list(queries())
    assert len(looked) > 50
    assert [(place, names) for place, expr in looked if (names := wrong(expr))] == []


@pytest.mark.parametrize(
    "expr",
    [
        "sum(queue_depth)",
        "sum by (model) (queue_depth)",
        "queue_depth > 100",
        "avg(inferstack_queue_replicas)",
        'max(sum by (model) (queue_depth{priority="low"}))',
        "sum(rate(inferstack_queue_completed_total[1m]))",
    ],
)
def test_a_query_that_adds_them_up_is_found(expr: str) -> None:
    assert wrong(expr)


def test_the_autoscaler_sees_each_waiting_task_once(tmp_path: Path) -> None:
    labels = 'model="m", version="1", namespace="ai-inference", instance="10.0.0.{}:9464"'
    series = [
        {"series": f'queue_depth{{priority="{priority}", {labels.format(api)}}}', "values": depth}
        for api in (1, 2, 3)
        for priority, depth in (("high", "40x5"), ("low", "60x5"))
    ]
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {"expr": keda_query(), "eval_time": "3m", "exp_samples": [{"value": 100}]}
        ],
    }
    path = tmp_path / "keda_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = promtool("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
