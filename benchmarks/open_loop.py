"""Fixed rates, Redis CPU and start-up: what only inferstack is asked."""

import time

import msgspec

from benchmarks.client import Target
from benchmarks.deploy import Deployment, cpu_seconds, deployed, fresh_home, keep_logs
from benchmarks.processes import free_port
from benchmarks.rounds import Context, line
from inferstack.client.load import run_blocking

WAITED_RATE = 1200.0
SUBMIT_RATE = 1000.0
CONNECTIONS = 256


class FixedRate(msgspec.Struct, frozen=True):
    """One run at a fixed rate."""

    rate: float
    """Requests per second that were due."""
    answered: float
    """Answers per second."""
    failed: int
    statuses: dict[int, int]
    errors: dict[str, int]
    latency_ms: dict[str, float]
    """From the time a request was due."""


class RedisCost(msgspec.Struct, frozen=True):
    """Redis CPU of whole lives of tasks, enqueue to archived."""

    tasks: int
    us_per_task: float
    settle_seconds: float
    """Until the recorder had caught up."""


class StartUp(msgspec.Struct, frozen=True):
    """Seconds from `inferstack up` to the first served MiniLM request."""

    fresh_home: float
    again: float
    """With the home of the first start."""


def fixed_rates(context: Context) -> tuple[FixedRate, FixedRate, RedisCost]:
    """Waited and submit-only requests at a fixed rate, then Redis CPU at full load."""
    profile = context.profile
    with deployed(context.place, "echo", "echo", context.up_options) as stack:
        target = stack.target("echo")
        context.client.closed(target, "echo", 64, profile.warm_up, 0)
        waited = _at(target, WAITED_RATE, profile.open_seconds)
        stack.settle()
        submitted = _at(stack.target("echo", wait=False), SUBMIT_RATE, profile.submit_seconds)
        stack.settle()
        cost = _redis_cost(context, stack, target)
    return waited, submitted, cost


def _at(target: Target, rate: float, seconds: float) -> FixedRate:
    report = run_blocking(target.load(CONNECTIONS, seconds, rate=rate))
    expected = 200 if "Prefer" in target.headers else 202
    other = sum(count for status, count in report.statuses.items() if status != expected)
    return FixedRate(
        rate,
        round(report.rate, 1),
        other + sum(report.errors.values()),
        report.statuses,
        report.errors,
        report.latency_ms,
    )


def _redis_cost(context: Context, stack: Deployment, target: Target) -> RedisCost:
    with stack.redis() as client:
        tasks, before = stack.archived(), cpu_seconds(client)
        sample = context.client.closed(target, "echo", 256, context.profile.seconds, 0)
        context.say(line(sample))
        settled = stack.settle()
        used, tasks = cpu_seconds(client) - before, stack.archived() - tasks
    return RedisCost(tasks, round(1e6 * used / max(tasks, 1), 1), round(settled, 2))


def start_up(context: Context) -> StartUp:
    """Starts a stack with all models in a fresh home, and once more in the same home."""
    stack = Deployment(fresh_home(context.place), free_port(), context.up_options)
    taken = []
    try:
        for _ in range(2):
            started = time.monotonic()
            stack.up()
            stack.first_answer("same")
            taken.append(round(time.monotonic() - started, 1))
            stack.down()
    finally:
        stack.down()
        keep_logs(stack.home, context.place)
    return StartUp(*taken)
