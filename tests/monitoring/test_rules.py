"""Rules and alerts, by Prometheus' own tool."""

import re
from pathlib import Path

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


@pytest.mark.parametrize("name", [path.name for path in CONFIG.glob("prometheus*.yml")])
def test_the_configuration_is_one(name: str) -> None:
    done = promtool("check", "config", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(RULES)


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
