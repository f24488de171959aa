"""A real stack under load, seen by a real Prometheus."""

import itertools
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from inferstack.client import Client, Problem
from inferstack.local.state import ChildState
from inferstack.task import TaskState
from inferstack.telemetry import discovery
from inferstack.worker import gpu, measures
from monitoring.dashboards import DASHBOARDS
from monitoring.dashboards.promql import WINDOW
from tests.local.stack import RealStack, readable_folder
from tests.monitoring.prometheus import Prometheus, collector, exporter, relabelled

T = TypeVar("T")
PATIENCE = 45.0
SERVICES = ("api", "recorder", "worker", "replica", "background")
DCGM = Path(__file__).parent / "exported" / "dcgm.prom"
"""Series of NVIDIA's exporter 4.5.3-4.8.2, by its default counters and its format of a line;
written by hand, since tests have no GPU."""
RARE = {"Alerts", "Connections cut off", "Credentials verified", "History not written"}
"""Panels of what this load does not bring about: they show a zero."""


class WatchedStack(RealStack):
    """A stack that tells everything, and gives up on a task quickly."""

    def __init__(self, root: Path, collector: str) -> None:
        """Args: collector: address of what takes its spans."""
        super().__init__(root)
        self._collector = collector

    def _environment(self, env: dict[str, str]) -> dict[str, str]:
        own = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{self._collector}",
            "LOG_LEVEL": "DEBUG",
            "MAX_ATTEMPTS": "2",
            "RETRY_DELAY": "0.05",
            "BREAKER_VOLUME": "1000000",
        }
        return super()._environment(own | env)


@pytest.fixture(scope="module")
def spans() -> list[dict[str, Any]]:
    """What the stack has told a collector so far."""
    return []


@pytest.fixture(scope="module")
def stack(spans: list[dict[str, Any]]) -> Iterator[WatchedStack]:
    with readable_folder() as folder, collector(spans) as address:
        found = WatchedStack(folder / "home", address)
        try:
            found.up()
            yield found
        finally:
            found.close()


def dcgm() -> bytes:
    """Of two machines, the other one with a newer exporter, which changed the name of a label."""
    samples = []
    for line in DCGM.read_text().splitlines():
        samples.append(line)
        if not line.startswith("#"):
            samples.append(line.replace('Hostname="gpu-1"', 'hostname="gpu-2"'))
    return "".join(f"{line}\n" for line in samples).encode()


@pytest.fixture(scope="module")
def prometheus(stack: WatchedStack) -> Iterator[Prometheus]:
    gib = 1024**3
    usage = gpu.GpuUsage(0, "NVIDIA L4", 0.87, 9 * gib, 23 * gib, 61, 68.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "gpus", lambda: [usage])
        page = measures.of_devices() + dcgm()
    with exporter(page) as address, Prometheus(stack.home.root, address) as found:
        yield found


def load(client: Client) -> None:
    """A little of everything: waited for, not waited for, wrong, and failing."""
    for priority in ("high", "normal", "low"):
        client.infer({"text": "hello"}, priority=priority)
        client.submit({"sleep_ms": 5}, priority=priority)
    client.submit({"fail": "on purpose"})
    for wrong in ({"sleep_ms": "long"}, {"sleep_ms": -1}):
        with pytest.raises(Problem):
            client.submit(wrong)
    with pytest.raises(Problem):
        client.submit({}, model="nope")


def queries() -> Iterator[tuple[str, str]]:
    """Every query of every panel; without its zero if this load brings the thing about."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                expr = query.expr
                if panel.title not in RARE:
                    expr = expr.partition(" or label_replace(vector(0)")[0]
                for name, value in ((WINDOW, "10s"), ("$model", ".*"), ("$route", ".*")):
                    expr = expr.replace(name, value)
                yield f"{dashboard.title}, {panel.title}: {expr}", expr


def shows(found: list[dict[str, Any]]) -> bool:
    """Whether there is a number to draw."""
    return any(sample["value"][1] != "NaN" for sample in found)


def seen(look: Callable[[], T], wanted: T) -> T:
    """Looks until it sees what is wanted, with a limit; returns what it saw last."""
    until = time.monotonic() + PATIENCE
    while (found := look()) != wanted and time.monotonic() < until:
        time.sleep(0.1)
    return found


def test_every_panel_shows_something_under_load(
    stack: WatchedStack, prometheus: Prometheus
) -> None:
    missing = dict(queries())
    until = time.monotonic() + PATIENCE
    with stack.client() as client:
        while missing and time.monotonic() < until:
            load(client)
            missing = {k: expr for k, expr in missing.items() if not shows(prometheus.query(expr))}
    assert list(missing) == []


def test_every_process_is_scraped(prometheus: Prometheus) -> None:
    def counts() -> dict[str, str]:
        found = prometheus.query('count by (service) (up{job="inferstack"} == 1)')
        return {sample["metric"]["service"]: sample["value"][1] for sample in found}

    once = dict.fromkeys(SERVICES, "1")
    assert seen(counts, once) == once
    assert seen(lambda: {rule["health"] for rule in prometheus.rules()}, {"ok"}) == {"ok"}


def test_a_gpu_is_known_by_its_machine_whatever_its_exporter_calls_that(
    prometheus: Prometheus,
) -> None:
    def machines() -> set[str]:
        found = prometheus.query("inferstack:gpu_xid:count")
        return {sample["metric"].get("Hostname", "") for sample in found}

    assert seen(machines, {"gpu-1", "gpu-2"}) == {"gpu-1", "gpu-2"}
    compose, kubernetes = map(relabelled, ("prometheus.compose.yml", "prometheus.kubernetes.yml"))
    assert compose == kubernetes


def test_one_scrape_of_the_api_shows_every_process(stack: WatchedStack) -> None:
    def shown() -> set[str]:
        text = httpx.get(f"http://127.0.0.1:{stack.port}/metrics").text
        return set(re.findall(r'inferstack_build_info\{process="(\w+)-', text))

    assert seen(shown, set(SERVICES)) == set(SERVICES)


def lines(stack: WatchedStack, task_id: str) -> list[dict[str, Any]]:
    """What all processes have written about a task, in order."""
    found = []
    for path in stack.home.logs.glob("*.log"):
        for line in path.read_text(errors="replace").splitlines():
            if f'"{task_id}"' in line and line.startswith("{"):
                found.append(json.loads(line))
    return sorted(found, key=lambda line: line["time"])


def life(stack: WatchedStack, task_id: str, last: str) -> list[tuple[str, str]]:
    """Who wrote what of a task, once somebody has written the last line of its life."""
    until = time.monotonic() + PATIENCE
    while True:
        found = lines(stack, task_id)
        if any(line["message"].startswith(last) for line in found):
            assert all(line["task_id"] == task_id for line in found)
            return [(line["service"], line["message"]) for line in found]
        assert time.monotonic() < until, found
        time.sleep(0.1)


def test_the_life_of_a_task_is_in_the_logs(stack: WatchedStack) -> None:
    with stack.client() as client:
        done = client.infer({"text": "hello"})
    told = life(stack, done.task_id, "completed")
    assert {
        ("api", "submitted: ok"),
        ("replica", "claimed"),
        ("replica", "its batch begins"),
        ("replica", "has a result"),
        ("api", "its end is known"),
        ("recorder", "completed"),
    } == set(told)
    assert told[-1] == ("recorder", "completed")


def test_the_end_of_a_task_that_fails_is_a_warning_with_its_reason(stack: WatchedStack) -> None:
    with stack.client() as client:
        task_id = client.submit({"fail": "because"}).task_id
        assert client.wait(task_id).status is TaskState.FAILED
    told = life(stack, task_id, "failed")
    assert ("replica", "its attempt failed and is repeated: ValueError: because") in told
    assert told[-1] == ("recorder", "failed: ValueError: because")
    (warning,) = [line for line in lines(stack, task_id) if line["level"] == "warning"]
    assert (warning["error"], warning["attempts"]) == ("engine-error", 2)


def test_a_request_is_one_trace_from_http_to_history(
    stack: WatchedStack, spans: list[dict[str, Any]]
) -> None:
    with stack.client() as client:
        task_id = client.infer({"text": "hello"}).task_id
    until = time.monotonic() + PATIENCE
    while not (found := _trace_of(task_id, spans)) or len(found) < 6:
        assert time.monotonic() < until, found
        time.sleep(0.1)
    http, task = found["POST /api/inference"], found["task echo:1"]
    assert "parentSpanId" not in http
    assert task["parentSpanId"] == http["spanId"]
    below = {name: span for name, span in found.items() if span not in (http, task)}
    assert {span["parentSpanId"] for span in below.values()} == {task["spanId"]}
    assert {name: span["service"].removeprefix("inferstack-") for name, span in below.items()} == {
        "queue": "queue",
        "batch": "replica",
        "predict": "replica",
        "archive": "recorder",
    }
    # One machine and so one clock, but Redis counts milliseconds.
    slack = 2_000_000
    steps = [below[name] for name in ("queue", "batch", "predict")]
    assert int(http["startTimeUnixNano"]) <= int(steps[0]["startTimeUnixNano"]) + slack
    assert int(steps[-1]["endTimeUnixNano"]) <= int(http["endTimeUnixNano"]) + slack
    for before, after in itertools.pairwise(steps):
        assert before["endTimeUnixNano"] == after["startTimeUnixNano"]


def _trace_of(task_id: str, spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The spans of the trace that a task is in, by name."""
    mine = {"key": "inferstack.task_id", "value": {"stringValue": task_id}}
    traces = {span["traceId"] for span in spans if mine in span["attributes"]}
    return {span["name"]: span for span in spans if span["traceId"] in traces}


def test_a_killed_process_is_no_target_any_more(stack: WatchedStack) -> None:
    before = stack.child("recorder").process
    assert before is not None
    path = discovery.folder(stack.home.root) / f"recorder-{before.pid}.json"
    assert path.exists()
    os.kill(before.pid, signal.SIGKILL)
    after: ChildState = stack.restarted("recorder", before)
    until = time.monotonic() + PATIENCE
    while path.exists() or not _announced(stack, after):
        assert time.monotonic() < until
        time.sleep(0.1)


def _announced(stack: WatchedStack, child: ChildState) -> bool:
    pid = child.process.pid if child.process else 0
    return (discovery.folder(stack.home.root) / f"recorder-{pid}.json").exists()
