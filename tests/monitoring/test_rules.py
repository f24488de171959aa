"""Rules and alerts, by Prometheus' own tool."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.prometheus import CONFIG, ROOT, promtool

RULES = sorted((CONFIG / "rules").glob("*.yml"))
TESTS = sorted((CONFIG / "tests").glob("*.yml"))


def alerts() -> dict[str, dict[str, str]]:
    """The annotations of each."""
    groups = yaml.safe_load((CONFIG / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["annotations"] for group in groups for rule in group["rules"]}


def test_every_rule_does_what_its_test_says() -> None:
    done = promtool("test", "rules", *map(str, TESTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(TESTS)


def test_a_test_of_rules_can_fail(tmp_path: Path) -> None:
    text = (CONFIG / "tests" / "alerts_test.yml").read_text()
    text = text.replace("../rules", str(CONFIG / "rules")).replace("1x4 0x20", "1x30")
    (tmp_path / "broken_test.yml").write_text(text)
    assert promtool("test", "rules", str(tmp_path / "broken_test.yml")).returncode == 1


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.compose.yml"])
def test_the_configuration_is_one(name: str) -> None:
    done = promtool("check", "config", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(RULES)


def pod(app: str, port: str, phase: str = "Running") -> dict[str, Any]:
    """A pod as discovery in Kubernetes finds it."""
    meta = "__meta_kubernetes"
    labels = {
        f"{meta}_namespace": "ai-inference",
        f"{meta}_pod_name": f"{app}-1",
        f"{meta}_pod_label_app": app,
        f"{meta}_pod_container_port_name": port,
        f"{meta}_pod_phase": phase,
    }
    return {"targets": [f"{app}-{port}-{phase}.example:9464".lower()], "labels": labels}


def test_pods_get_the_labels_that_alerts_and_the_autoscaler_count_on(tmp_path: Path) -> None:
    """By Prometheus itself; Debian builds it without discovery in Kubernetes, so pods are told."""
    pods = [
        *(pod(app, "metrics") for app in ("api-server", "recorder", "background", "ray-head")),
        *(pod("gpu-worker", "metrics"), pod("gpu-worker", "metrics", "Failed")),
        *(pod("api-server", "http"), pod("dcgm-exporter", "metrics"), pod("redis", "redis")),
    ]
    config = yaml.safe_load((CONFIG / "prometheus.kubernetes.yml").read_text())
    config["rule_files"] = [str(CONFIG / "rules" / "*.yml")]
    for job in config["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):
            job["static_configs"] = pods
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    done = promtool("check", "config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(RULES)
    done = promtool("check", "service-discovery", "--timeout=1s", str(path), "inferstack")
    found = [each["labels"] for each in json.loads(done.stdout) if each["labels"]]
    assert {(each["pod"], each["service"]) for each in found} == {
        ("api-server-1", "api"),
        ("recorder-1", "recorder"),
        ("background-1", "background"),
        ("ray-head-1", "worker"),
        ("gpu-worker-1", "worker"),
    }
    assert len(found) == 5
    assert {(each["job"], each["namespace"]) for each in found} == {("inferstack", "ai-inference")}


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_is_tested_and_has_its_entry_in_the_runbook(alert: str) -> None:
    tests = yaml.safe_load((CONFIG / "tests" / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert}
    assert fires == {True, False}
    assert alerts()[alert]["runbook"] == f"docs/operations.md#{alert.lower()}"
    text = (ROOT / "docs" / "operations.md").read_text()
    assert re.search(rf"^### {alert}$", text, re.MULTILINE)


def test_the_runbook_tells_of_no_other_alert() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"\bInferstack[A-Z]\w+", text)) == alerts().keys()
