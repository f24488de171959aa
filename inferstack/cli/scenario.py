"""`inferstack bench --scenario`: a declared load, and whether the system held it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from inferstack.cli.output import answers, as_json, errors, table
from inferstack.client import Client, Retries
from inferstack.client.load import run_steps_blocking
from inferstack.client.load_plan import Load, requests
from inferstack.client.options import Target
from inferstack.client.scenario_report import Check, ScenarioReport, StageReport, judge
from inferstack.client.scenarios import Scenario, ScenarioName, declaration

FIRST_ANSWER = 60.0
"""Seconds that the request before the load may take: the model may have to get going."""

NUMBERS = ("asked/s", "served/s", "p50 ms", "p95 ms", "p99 ms", "refused", "unsent", "failed")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; None takes what is usual, or declared for the scenario."""

    model: str | None
    version: int | None
    data: Sequence[dict[str, Any]] = ()
    """Inputs in place of those."""
    rate: float | None
    duration: float | None
    connections: int | None
    wait: float | None
    allow_remote: bool


def bench(
    name: ScenarioName, wanted: Wanted, target: Target, token: str | None, *, json: bool
) -> None:
    """Runs a scenario and prints what became of each stage; exit status 1 if a limit broke.

    Args:
        name: what to run.
        wanted: what differs from its declaration.
        target: where.
        token: as whom; what the environment says if None.
        json: print JSON only.

    Raises:
        Problem: the API refuses the request before the load.
        UnreachableError: it does not answer.
    """
    declared = declaration()
    scenario = declared.scenarios[name].changed(
        rate=wanted.rate,
        duration=wanted.duration,
        connections=wanted.connections,
        wait=wanted.wait,
    )
    bodies = declared.bodies(
        wait=scenario.wait, model=wanted.model, version=wanted.version, data=wanted.data
    )
    load = declared.load(scenario, target, bodies, allow_remote=wanted.allow_remote)
    requests(load)  # Refuses a target that may not be loaded before anything goes there.
    _one_request(target, token, wanted, bodies[0])
    errors.print(plan(name, scenario, load), soft_wrap=True)
    stages = judge(scenario, declared.limits, run_steps_blocking(load))
    report = ScenarioReport(
        scenario=name,
        url=target.url,
        model=wanted.model,
        connections=scenario.connections,
        held=all(check.held for stage in stages for check in stage.checks),
        stages=stages,
    )
    if json:
        as_json(report)
    else:
        show(answers, report)
    if not report.held:
        raise typer.Exit(1)


def plan(name: str, scenario: Scenario, load: Load) -> str:
    """One line that says what is about to happen."""
    rates = ", ".join(f"{step.rate:,g}/s for {step.seconds:,g} s" for step in scenario.steps())
    count = sum(step.count for step in scenario.steps())
    url = load.url.removesuffix("/api/inference")
    return f"{name}, {scenario.about} {count:,} requests to {url}: {rates}"


def show(console: Console, report: ScenarioReport) -> None:
    """Prints the stages as a table, what failed in them, and whether the limits were kept."""
    shown = table("stage")
    for name in NUMBERS:
        shown.add_column(name, justify="right", no_wrap=True)
    for stage in report.stages:
        shown.add_row(*_row(stage))
    console.print(shown)
    for stage in report.stages:
        if stage.reasons:
            why = ", ".join(f"{count:,} {reason}" for reason, count in stage.reasons.items())
            console.print(Text(f"{stage.name}: failed: {why}", style="red"), soft_wrap=True)
    console.print(_strain(report), soft_wrap=True)
    for stage, check in report.missed:
        console.print(Text(f"MISSED {stage.name}: {_told(check)}", style="red"), soft_wrap=True)
    count, missed = sum(len(stage.checks) for stage in report.stages), len(report.missed)
    verdict = f"missed {missed} of {count} limits" if missed else f"all {count} limits held"
    style = "bold red" if missed else "bold green"
    console.print(Text(f"{report.scenario}: {verdict}", style=style))


def _row(stage: StageReport) -> list[str]:
    latencies = [_short(stage.latency_ms[name]) for name in ("p50", "p95", "p99")]
    counts = [f"{count:,}" for count in (stage.refused, stage.unsent, stage.failed)]
    return [stage.name, _short(stage.asked), _short(stage.served), *latencies, *counts]


def _short(value: float) -> str:
    """A number that leaves room for its neighbours in 80 columns."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}"


def _strain(report: ScenarioReport) -> str:
    """Where it became too much."""
    for stage in report.stages:
        if stage.strained:
            return (
                f"Too much from {stage.name} on: {_short(stage.asked)} requests asked, "
                f"{_short(stage.served)} served a second."
            )
    most = max(stage.asked for stage in report.stages)
    return f"It served all that was asked, up to {_short(most)} requests a second."


def _told(check: Check) -> str:
    if check.name.endswith("_ms"):
        name = check.name.removesuffix("_ms")
        return f"{name} {check.measured:,.1f} ms, at most {check.limit:,g} ms"
    return f"{check.name} {check.measured:.3%}, at most {check.limit:.3%}"


def _one_request(target: Target, token: str | None, wanted: Wanted, body: bytes) -> None:
    """Has one request served first, so that whatever is wrong with all of them is told at once."""
    data = msgspec.json.decode(body)["data"]
    with Client(target.url, token=token, retries=Retries(attempts=1)) as client:
        client.infer(data, model=wanted.model, model_version=wanted.version, wait=FIRST_ANSWER)
