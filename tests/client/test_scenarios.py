"""The declared scenarios, and how what became of them is judged."""

import json

import pytest

from inferstack.client.load_report import LoadReport, percentiles
from inferstack.client.options import Target
from inferstack.client.scenario_report import judge
from inferstack.client.scenarios import (
    Declaration,
    Limits,
    Scenario,
    ScenarioName,
    Stage,
    declaration,
)
from inferstack.task import Priority

TARGET = Target(url="http://127.0.0.1:8000", headers={"x-api-key": "is_key"})
LIMITS = {
    "strict": Limits(failed=0, refused=0, unsent=0, p95_ms=100, p99_ms=200),
    "overload": Limits(failed=0, refused=1, unsent=1),
}


@pytest.fixture(scope="module")
def declared() -> Declaration:
    return declaration()


def scenario(*limits: str) -> Scenario:
    """Ten requests a second, ten seconds for each of the limits."""
    stages = tuple(Stage(name, 10.0, 1.0, name) for name in limits)
    return Scenario("a test", 10.0, 4, 30.0, stages)


def report(
    good: int,
    statuses: dict[int, int] | None = None,
    latency: float = 0.05,
    rate: float = 10.0,
    errors: dict[str, int] | None = None,
    refusals: dict[int, int] | None = None,
    unsent: int = 0,
) -> LoadReport:
    return LoadReport(
        sent=100,
        completed=100,
        duration=10.0,
        rate=rate,
        statuses={200: good} | (statuses or {}),
        errors=errors or {},
        latency_ms=percentiles([latency] * good),
        bytes_received=0,
        refusals=refusals or {},
        unsent=unsent,
    )


def test_all_that_can_be_asked_for_is_declared_with_limits_that_exist(
    declared: Declaration,
) -> None:
    assert set(declared.scenarios) == set(ScenarioName)
    for found in declared.scenarios.values():
        names = [stage.name for stage in found.stages]
        assert len(set(names)) == len(names)
        assert {stage.limits for stage in found.stages} <= set(declared.limits)


def test_the_target_is_what_was_ordered(declared: Declaration) -> None:
    load = declared.scenarios[ScenarioName.LOAD]
    assert load.steps()[-1].rate == 1200
    limits = declared.limits[load.stages[-1].limits]
    assert (limits.p95_ms, limits.p99_ms, limits.failed) == (120, 250, 0.001)
    assert limits.refused == limits.unsent == 0


def test_a_spike_is_sudden_and_ten_times_as_much_and_all_is_as_before_in_the_end(
    declared: Declaration,
) -> None:
    before, spike, *_, after = declared.scenarios[ScenarioName.SPIKE].stages
    assert spike.times == 10 * before.times
    assert (after.times, after.limits) == (before.times, before.limits)


def test_everything_stops_by_itself(declared: Declaration) -> None:
    for name, found in declared.scenarios.items():
        assert found.seconds <= (1800 if name is ScenarioName.SOAK else 120)


def test_every_priority_is_in_the_mix(declared: Declaration) -> None:
    sent = [json.loads(body)["priority"] for body in declared.bodies()]
    assert set(sent) == set(Priority)
    assert sent.count("normal") > len(sent) / 2


def test_bodies_take_model_inputs_and_a_time_to_live_that_outlasts_the_wait(
    declared: Declaration,
) -> None:
    data = [{"n": 1}, {"n": 2}, {"n": 3}]
    bodies = declared.bodies(wait=90.0, model="echo", version=2, data=data)
    sent = [json.loads(body) for body in bodies]
    assert {(b["model"], b["model_version"], b["timeout"]) for b in sent} == {("echo", 2, 90.0)}
    # Each input goes with each priority.
    assert len({(b["data"]["n"], b["priority"]) for b in sent}) == 9


def test_other_figures_keep_the_shape(declared: Declaration) -> None:
    spike = declared.scenarios[ScenarioName.SPIKE]
    changed = spike.changed(rate=12, duration=5, connections=7)
    assert [step.rate for step in changed.steps()] == [12, 120, 12, 12]
    assert [stage.seconds for stage in changed.stages] == [1, 1, 1.5, 1.5]
    assert (changed.connections, changed.wait) == (7, spike.wait)
    assert spike.changed() == spike


def test_a_load_carries_credentials_and_asks_for_results_that_completed(
    declared: Declaration,
) -> None:
    smoke = declared.scenarios[ScenarioName.SMOKE]
    load = declared.load(smoke, TARGET, declared.bodies(), allow_remote=False)
    assert load.url == "http://127.0.0.1:8000/api/inference"
    assert load.headers == {"x-api-key": "is_key", "prefer": "wait=30"}
    assert load.expected
    only_submits = declared.load(smoke.changed(wait=0), TARGET, [], allow_remote=False)
    assert "prefer" not in only_submits.headers
    assert not only_submits.expected


def test_a_stage_that_keeps_its_limits_holds() -> None:
    (stage,) = judge(scenario("strict"), LIMITS, [report(100)])
    assert all(check.held for check in stage.checks)
    assert (stage.asked, stage.due, stage.failed, stage.strained) == (10, 100, 0, False)


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (report(100, latency=0.15), {"p95_ms"}),
        (report(100, latency=0.25), {"p95_ms", "p99_ms"}),
        (report(99, {500: 1}), {"failed"}),
        (report(99, {301: 1}), {"failed"}),
        (report(99, errors={"timeout": 1}), {"failed"}),
        (report(99, {503: 1}), {"failed"}),
        (report(99, {503: 1}, refusals={503: 1}), {"refused"}),
        (report(99, unsent=1), {"unsent"}),
        (report(0), {"failed"}),
    ],
)
def test_each_limit_can_be_missed(found: LoadReport, missed: set[str]) -> None:
    (stage,) = judge(scenario("strict"), LIMITS, [found])
    assert {check.name for check in stage.checks if not check.held} == missed


def test_an_overload_may_be_refused_but_nothing_else() -> None:
    refused = report(30, {429: 20, 503: 40}, refusals={429: 20, 503: 40}, unsent=10, rate=3.0)
    (stage,) = judge(scenario("overload"), LIMITS, [refused])
    assert all(check.held for check in stage.checks)
    assert (stage.refused, stage.unsent, stage.failed, stage.strained) == (60, 10, 0, True)
    silent = report(30, {429: 20, 503: 40}, refusals={429: 20, 503: 39}, unsent=10, rate=3.0)
    (stage,) = judge(scenario("overload"), LIMITS, [silent])
    assert stage.reasons == {"status 503": 1}
    assert [check.name for check in stage.checks if not check.held] == ["failed"]


@pytest.mark.parametrize(
    ("latency", "in_time", "strained"),
    [
        (0.001, 95, False),
        (0.001, 94, True),
        (1.0, 86, False),  # Ten are always under way.
        (1.0, 84, True),
    ],
)
def test_a_stage_is_too_much_when_answers_fall_behind(
    latency: float, in_time: int, strained: bool
) -> None:
    found = report(100, latency=latency, rate=in_time / 10)
    (stage,) = judge(scenario("overload"), LIMITS, [found])
    assert stage.strained is strained


def test_of_a_handful_of_requests_a_few_may_be_late() -> None:
    five = Scenario("five", 0.5, 4, 30.0, (Stage("five", 10.0, 1.0, "overload"),))
    for in_time, strained in ((2, False), (1, True)):
        (stage,) = judge(five, LIMITS, [report(5, latency=0.001, rate=in_time / 10)])
        assert stage.strained is strained


def test_what_is_not_accounted_for_failed() -> None:
    gone = report(30, errors={"connection-lost": 4, "unreachable": 16})
    nothing = report(0, errors={})
    first, second = judge(scenario("overload", "overload"), LIMITS, [gone, nothing])
    assert first.reasons == {"connection-lost": 4, "unreachable": 16, "never-sent": 50}
    assert second.reasons == {"never-sent": 100}
    assert not any(check.held for s in (first, second) for check in s.checks[:1])
