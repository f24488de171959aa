"""Alerts reach an Alertmanager once somebody has named one."""

import time
from pathlib import Path

import yaml

from tests.monitoring.prometheus import CONFIG, Prometheus, promtool

PATIENCE = 45.0
TARGETS = "targets/alertmanagers.yml"


def test_prometheus_sends_alerts_to_the_alertmanager_that_is_named(tmp_path: Path) -> None:
    with Prometheus(tmp_path, "127.0.0.1:9") as prometheus:
        assert prometheus.alertmanagers() == []
        path = prometheus.directory / TARGETS
        path.parent.mkdir()
        path.write_text("- targets: [alertmanager.example.com:9093]\n")
        until = time.monotonic() + PATIENCE
        while not (found := prometheus.alertmanagers()):
            assert time.monotonic() < until
            time.sleep(0.1)
    assert found == ["http://alertmanager.example.com:9093/api/v2/alerts"]


def test_compose_looks_for_it_in_the_same_place() -> None:
    configs = [CONFIG / name for name in ("prometheus.yml", "prometheus.compose.yml")]
    ours, composed = (yaml.safe_load(path.read_text())["alerting"] for path in configs)
    assert ours == composed
    assert ours["alertmanagers"][0]["file_sd_configs"][0]["files"] == [TARGETS]


def test_what_kubernetes_comments_out_is_right(tmp_path: Path) -> None:
    text = (CONFIG / "prometheus.kubernetes.yml").read_text()
    _, _, block = text.partition("# alerting:")
    block = "alerting:" + block.partition("\n\n")[0].replace("\n# ", "\n")
    path = tmp_path / "prometheus.yml"
    path.write_text(block)
    done = promtool("check", "config", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load(block)["alerting"]["alertmanagers"][0]["static_configs"]
