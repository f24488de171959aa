"""The dashboards as files."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from inferstack.telemetry import metrics
from monitoring.dashboards import DASHBOARDS, FOLDER
from monitoring.dashboards.model import Dashboard
from monitoring.dashboards.render import COLUMNS, render
from tests.monitoring.prometheus import CONFIG, ROOT

TITLES = {
    "System Overview",
    "API Performance",
    "GPU Utilization",
    "Queue Health",
    "Error Rates",
}
FOREIGN = re.compile(r"^(up|ALERTS|DCGM_FI_\w+|process_\w+)$")
"""What Prometheus, the DCGM exporter and prometheus-client bring along."""
SUFFIXES = {"counter": "_total", "info": "_info"}
REGISTRIES = (metrics.API, metrics.REPLICA, metrics.WORKER, metrics.RECORDER, metrics.BACKGROUND)


def rules() -> Iterator[dict[str, Any]]:
    for path in (CONFIG / "rules").glob("*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def series(expr: str) -> set[str]:
    """The names of series in an expression: what is no function, keyword, label or value."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", bare)
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", re.sub(r"\b\w+(?=\s*\()", "", bare))
    return {
        word for word in words if word not in {"or", "and", "unless", "bool", "offset", "m", "e6"}
    }


def declared() -> set[str]:
    names = {str(rule["record"]) for rule in rules() if "record" in rule}
    for registry in REGISTRIES:
        names |= set(_names(registry))
    return names


def _names(registry: CollectorRegistry) -> list[str]:
    # What a registry refuses to have twice: every name that its families can show.
    return list(registry._names_to_collectors)


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)
def test_the_file_is_what_the_generator_makes(dashboard: Dashboard) -> None:
    assert (FOLDER / f"{dashboard.uid}.json").read_text() == render(dashboard), (
        "run `python -m monitoring.dashboards`"
    )


def test_the_dashboards_are_those_that_were_promised() -> None:
    assert {dashboard.title for dashboard in DASHBOARDS} == TITLES
    assert {path.stem for path in FOLDER.iterdir()} == {d.uid for d in DASHBOARDS}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)
def test_panels_have_numbers_of_their_own_and_do_not_cover_each_other(
    dashboard: Dashboard,
) -> None:
    panels = json.loads(render(dashboard))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        assert place["x"] + place["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda d: d.uid)
def test_every_series_that_a_panel_shows_exists(dashboard: Dashboard) -> None:
    known = declared()
    shown = [series(query.expr) for panel in dashboard.panels for query in panel.queries]
    shown += [{variable.series} for variable in dashboard.variables]
    missing = {name for names in shown for name in names if not FOREIGN.match(name)} - known
    assert missing == set()


def test_every_series_that_a_rule_uses_exists() -> None:
    used = {name for rule in rules() for name in series(rule["expr"])}
    assert {name for name in used if not FOREIGN.match(name)} - declared() == set()


def test_processes_of_different_containers_are_kept_apart() -> None:
    """`process` is a name and a pid, and pids repeat: in each container they start anew."""
    panels = [panel for dashboard in DASHBOARDS for panel in dashboard.panels]
    queries = [(query.expr, query.legend) for panel in panels for query in panel.queries]
    queries += [(rule["expr"], "") for rule in rules()]
    found = 0
    for expr, legend in queries:
        for labels in re.findall(r"\bby \(([^)]*)\)", expr):
            if "process" in labels.split(", "):
                assert "instance" in labels.split(", "), expr
                found += 1
        assert ("{{process}}" in legend) <= ("{{instance}}" in legend), expr
    assert found


def test_every_series_is_explained() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    for registry in REGISTRIES:
        for collector in registry._collector_to_names:
            for family in collector.collect():
                if not family.name.startswith(("process", "python")):
                    name = family.name + SUFFIXES.get(family.type, "")
                    assert f"`{name}`" in text, name


def test_the_five_names_that_everybody_looks_for_are_there() -> None:
    assert {
        "http_requests_total",
        "http_request_duration_seconds",
        "queue_depth",
        "gpu_utilization",
        "gpu_memory_used",
    } <= declared()


def test_grafana_is_told_where_everything_is() -> None:
    folder = ROOT / "monitoring" / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "inferstack.yml").read_text())
    assert [source["uid"] for source in sources["datasources"]] == ["prometheus", "loki"]
    scrape = yaml.safe_load((CONFIG / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert sources["datasources"][0]["jsonData"]["timeInterval"] == scrape
    yaml.safe_load((folder / "dashboards" / "inferstack.yml").read_text())


def test_loki_keeps_tasks_out_of_the_labels() -> None:
    loki = yaml.safe_load((ROOT / "monitoring" / "loki" / "loki.yml").read_text())
    assert loki["limits_config"]["allow_structured_metadata"] is True
    (schema,) = loki["schema_config"]["configs"]
    assert (schema["store"], schema["schema"]) == ("tsdb", "v13")


@pytest.mark.parametrize("name", ["embedded.alloy", "config.alloy"])
def test_alloy_refers_only_to_what_it_declares(name: str) -> None:
    text = (ROOT / "monitoring" / "alloy" / name).read_text()
    bare = re.sub(r"//.*", "", re.sub(r'"[^"\n]*"', lambda m: m.group().replace("{", ""), text))
    assert bare.count("{") == bare.count("}")
    components = {
        f"{kind}.{label}" for kind, label in re.findall(r'^([\w.]+) "(\w+)" \{', text, re.M)
    }
    used = set(
        re.findall(
            r"\b((?:local|loki|discovery)\.\w+(?:\.\w+)?)\.(?:receiver|targets|output)\b", text
        )
    )
    assert used
    assert used <= components


def test_both_ways_into_loki_read_lines_alike() -> None:
    folder = ROOT / "monitoring" / "alloy"
    tails = {_pipeline(folder / name) for name in ("embedded.alloy", "config.alloy")}
    assert len(tails) == 1


def _pipeline(path: Path) -> str:
    text = path.read_text().partition('loki.process "inferstack"')[2]
    return text.partition("loki.write")[0]
