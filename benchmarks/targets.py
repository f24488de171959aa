"""The numbers that inferstack must reach, and whether a run reached them."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import msgspec

from benchmarks.client import Sample
from benchmarks.growth import Level
from benchmarks.open_loop import FixedRate, RedisCost, StartUp
from benchmarks.rounds import HEADLINE


class Verdict(msgspec.Struct, frozen=True):
    """One line of the table."""

    measure: str
    value: float
    bound: float
    at_least: bool
    """Whether the bound is a minimum; a maximum otherwise."""
    unit: str = "x"
    detail: str = ""
    judged: bool = True
    """False for comparisons that are shown but have no target."""

    @property
    def met(self) -> bool:
        """Whether the value is on the right side of the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


Rates = dict[tuple[str, str, int], float]
"""Rate by system, kind of payload and connections."""


def middle(samples: Sequence[Sample]) -> Rates:
    """The rate of each cell in its middle round, whoever was disturbed in another."""
    rates: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for sample in samples:
        rates[sample.system, sample.kind, sample.connections].append(sample.rate)
    return {cell: median(found) for cell, found in rates.items()}


def best(found: Rates, system: str, kind: str) -> float:
    """A system's better rate of the headline connections; 0 if it was not measured."""
    return max((found.get((system, kind, count), 0.0) for count in HEADLINE), default=0.0)


def ratio(mine: float, other: float) -> float:
    """How many times as much; 0 without a measurement."""
    return round(mine / other, 3) if other else 0.0


NO_OP = (
    ("fastapi-uvicorn", "empty FastAPI GET (uvicorn)", 0.8, True),
    ("fastapi-granian", "empty FastAPI GET (granian)", 0.8, False),
    ("celery-submit", "FastAPI + Celery, submit only", 10.0, True),
    ("celery-wait", "FastAPI + Celery, waiting for the result", 10.0, True),
    ("ray", "Ray Serve HTTP", 15.0, True),
    ("ray-haproxy", "Ray Serve HTTP (HAProxy, throughput-optimized)", 1.0, False),
    ("litserve", "LitServe", 4.0, True),
    ("mosec", "mosec", 1.0, False),
)
"""System, its name in the table, the bound, whether it is a target."""


def no_op(samples: Sequence[Sample]) -> list[Verdict]:
    """Durable, authenticated, waited no-op against everybody."""
    found = middle(samples)
    mine = best(found, "inferstack", "echo")
    return [
        Verdict(
            f"no-op vs {label}",
            ratio(mine, theirs),
            bound,
            True,
            detail=f"{mine:,.0f} / {theirs:,.0f} per s",
            judged=judged,
        )
        for system, label, bound, judged in NO_OP
        if mine and (theirs := best(found, system, "echo"))
    ]


def minilm(samples: Sequence[Sample]) -> list[Verdict]:
    """MiniLM against the raw model and against the best peer."""
    found = middle(samples)
    verdicts = []
    for connections in HEADLINE:
        mine = found.get(("inferstack", "same", connections), 0.0)
        for name, judged in (("raw-1x2", True), ("raw-2x1", False)):
            raw = found.get((name, "same", 0), 0.0)
            if mine and raw:
                label = f"MiniLM same-length, {connections} conn, vs raw ({name[4:]} threads)"
                detail = f"{mine:,.0f} / {raw:,.0f} per s"
                verdicts.append(Verdict(label, ratio(mine, raw), 0.9, True, "x", detail, judged))
    mine = best(found, "inferstack", "mixed")
    rivals = {name: best(found, name, "mixed") for name in ("mosec", "litserve")}
    rival = max(rivals, key=lambda name: rivals[name])
    if mine and rivals[rival]:
        detail = f"{mine:,.1f} / {rivals[rival]:,.1f} per s"
        label = f"MiniLM mixed-length vs the best of mosec and LitServe ({rival})"
        verdicts.append(Verdict(label, ratio(mine, rivals[rival]), 1.3, True, detail=detail))
    return verdicts


def fixed(waited: FixedRate, submitted: FixedRate, cost: RedisCost) -> list[Verdict]:
    """Latencies at fixed rates, and Redis CPU."""
    verdicts = []
    for label, run, bounds in (
        ("open loop", waited, {"p50": 45.0, "p95": 120.0, "p99": 250.0}),
        ("submit only", submitted, {"p50": 10.0, "p99": 50.0}),
    ):
        label = f"{label} {run.rate:,.0f}/s"
        for name, bound in bounds.items():
            verdicts.append(Verdict(f"{label} {name}", run.latency_ms[name], bound, False, " ms"))
        verdicts.append(Verdict(f"{label} failed", run.failed, 0, False, ""))
    detail = f"{cost.tasks:,} tasks"
    verdicts.append(Verdict("Redis CPU per task", cost.us_per_task, 150, False, " us", detail))
    return verdicts


def growth(levels: Sequence[Level]) -> list[Verdict]:
    """The cost of an enqueue at the longest queue, relative to the empty one."""
    empty, longest = levels[0], levels[-1]
    label = f"enqueue with {longest.queued:,} queued vs empty"
    return [
        Verdict(f"{label}, latency", ratio(longest.enqueue_ms, empty.enqueue_ms), 1.3, False),
        Verdict(
            f"{label}, Redis CPU",
            ratio(longest.redis_us_per_task, empty.redis_us_per_task),
            1.3,
            False,
        ),
    ]


def start_up(found: StartUp) -> list[Verdict]:
    """From `inferstack up` to the first answer."""
    return [Verdict("start to first MiniLM answer", found.fresh_home, 40, False, " s")]


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """With the outcome spelled out."""
    return [{**msgspec.to_builtins(verdict), "met": verdict.met} for verdict in verdicts]
