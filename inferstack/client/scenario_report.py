"""What a scenario came to: each stage beside its limits. Pure."""

from collections.abc import Sequence

import msgspec

from inferstack.client.load_report import LoadReport, good
from inferstack.client.scenarios import Limits, Scenario, Stage

ENOUGH = 0.95
"""Share of the rate asked for from which on a stage counts as served."""
FEW = 3
"""Answers that may come when a stage is over: of a handful of requests, one is more than a
twentieth. As many more may as are under way at any time if each takes as long as the fastest."""


class Check(msgspec.Struct, frozen=True):
    """A limit, and what was measured."""

    name: str
    """`failed`, `refused`, `unsent`: shares; `p95_ms`, `p99_ms`: milliseconds."""
    measured: float
    limit: float

    @property
    def held(self) -> bool:
        """Whether the limit was kept."""
        return self.measured <= self.limit


class StageReport(msgspec.Struct, frozen=True):
    """What became of the requests of a stage."""

    name: str
    asked: float
    """Requests per second."""
    due: int
    """Requests that were due."""
    failed: int
    refused: int
    unsent: int
    served: float
    """Good answers per second during the stage, whenever their requests were due."""
    latency_ms: dict[str, float]
    """From the time that a request was due; without refusals."""
    reasons: dict[str, int]
    """Why requests failed: `status 500`, `timeout` and so on, and how often."""
    checks: tuple[Check, ...]
    strained: bool
    """Whether it was more than the system could serve."""


class ScenarioReport(msgspec.Struct, frozen=True):
    """What became of a scenario."""

    scenario: str
    url: str
    model: str | None
    connections: int
    held: bool
    """Whether all limits were kept."""
    stages: tuple[StageReport, ...]

    @property
    def missed(self) -> list[tuple[StageReport, Check]]:
        """Each limit that was not kept, with its stage."""
        return [(s, check) for s in self.stages for check in s.checks if not check.held]


def judge(
    scenario: Scenario, limits: dict[str, Limits], reports: Sequence[LoadReport]
) -> tuple[StageReport, ...]:
    """Each stage beside its limits.

    Args:
        scenario: what was asked.
        limits: by the names that the stages give.
        reports: what came of each stage.
    """
    steps = scenario.steps()
    return tuple(
        _stage(stage, step.rate, step.count, limits[stage.limits], report)
        for stage, step, report in zip(scenario.stages, steps, reports, strict=True)
    )


def _stage(stage: Stage, asked: float, due: int, limits: Limits, report: LoadReport) -> StageReport:
    reasons = _reasons(report, due)
    failed, refused = sum(reasons.values()), sum(report.refusals.values())
    counts = {"failed": failed, "refused": refused, "unsent": report.unsent}
    measured = {name: count / due if due else 1.0 for name, count in counts.items()}
    measured |= {f"{name}_ms": report.latency_ms[name] for name in ("p95", "p99")}
    checks = tuple(
        Check(name, measured[name], limit)
        for name in Limits.__struct_fields__
        if (limit := getattr(limits, name)) is not None
    )
    return StageReport(
        name=stage.name,
        asked=asked,
        due=due,
        failed=failed,
        refused=refused,
        unsent=report.unsent,
        served=report.rate,
        latency_ms=report.latency_ms,
        reasons=reasons,
        checks=checks,
        strained=_behind(report, asked, due) or refused + report.unsent > 0,
    )


def _behind(report: LoadReport, asked: float, due: int) -> bool:
    """Whether more answers were missing at the end of a stage than are always under way."""
    missing = due - report.rate * report.duration
    under_way = asked * report.latency_ms["min"] / 1000
    return missing > max(FEW, (1 - ENOUGH) * due) + under_way


def _reasons(report: LoadReport, due: int) -> dict[str, int]:
    """Why requests failed, and how often; none that was due is forgotten."""
    found = {
        f"status {status}": count - report.refusals.get(status, 0)
        for status, count in sorted(report.statuses.items())
        if not good(status)
    }
    found |= report.errors
    settled = sum(n for status, n in report.statuses.items() if good(status))
    settled += sum(found.values()) + sum(report.refusals.values()) + report.unsent
    found["never-sent"] = due - settled
    return {reason: count for reason, count in found.items() if count > 0}
