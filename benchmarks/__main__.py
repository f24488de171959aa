"""`python -m benchmarks`: the whole comparison, or parts of it, in one run."""

import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import growth, machine, open_loop, prepare, report, targets
from benchmarks.client import Client, Sample
from benchmarks.profiles import PROFILES
from benchmarks.rounds import Context, throughput
from benchmarks.targets import Verdict

PLACE = machine.ROOT / ".bench"
BUSY = 0.5
"""Load average from which on a run is worth little."""


class Part(StrEnum):
    """What can be measured."""

    NO_OP = "noop"
    MINILM = "minilm"
    FIXED = "fixed"
    GROWTH = "growth"
    START_UP = "startup"


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="All if none is named.")] = None,
    profile: Annotated[str, typer.Option(help="quick or full")] = "full",
    systems: Annotated[str, typer.Option(help="Only these, comma-separated.")] = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="Instead of the profile's.")] = None,
    own_client: Annotated[bool, typer.Option(help="Do not use wrk.")] = False,
    no_ray: Annotated[bool, typer.Option(help="Run inferstack with --no-ray.")] = False,
    peers_python: Annotated[Path | None, typer.Option(help="Instead of .venv-bench.")] = None,
    place: Annotated[Path, typer.Option(help="For homes and logs; on a real disk.")] = PLACE,
    out: Annotated[Path, typer.Option(help="Where the JSON goes.")] = report.RESULTS,
) -> None:
    """Measures, prints tables and writes JSON. Exits with 1 if a target is missed."""
    console = Console(width=140 if not os.isatty(1) else None)
    chosen = PROFILES[profile]
    if rounds is not None:
        chosen = type(chosen)(**{**_fields(chosen), "rounds": rounds})
    place.mkdir(parents=True, exist_ok=True)
    client = Client(None if own_client else prepare.wrk(), os.cpu_count() or 1)
    context = Context(
        chosen,
        client,
        peers_python or prepare.peers_python(),
        place,
        lambda text: console.print(text, highlight=False),
        ("--no-ray",) if no_ray else (),
        frozenset(name for name in systems.split(",") if name),
    )
    content: dict[str, Any] = {
        "machine": machine.describe(),
        "profile": chosen,
        "client": client.name,
    }
    content["inferstack_options"] = list(context.up_options)
    if os.getloadavg()[0] > BUSY:
        console.print("[yellow]this machine is busy already: expect disturbed numbers[/yellow]")
    # Servers are ended by `finally`, which the default SIGTERM would skip.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    found = run(context, parts or list(Part), content, out)
    report.rates(console, [s for name in ("noop", "minilm") for s in content.get(name, [])])
    report.verdicts(console, found)
    content |= {"targets": targets.as_json(found), "skipped": context.skipped}
    report.write(out, content)
    console.print(f"written to {out}; client: {client.name}")
    for name, why in context.skipped.items():
        console.print(f"[red]not measured: {name}: {why}[/red]")
    if context.skipped or any(verdict.judged and not verdict.met for verdict in found):
        raise typer.Exit(1)


def _fields(profile: Any) -> dict[str, Any]:
    return {name: getattr(profile, name) for name in profile.__struct_fields__}


def run(context: Context, parts: list[Part], content: dict[str, Any], out: Path) -> list[Verdict]:
    """Measures the parts in order; their raw numbers go into `content`.

    After each part they are written to `out`: one that fails takes none of the others with it.
    """
    found: list[Verdict] = []
    started = time.monotonic()
    for part in dict.fromkeys(parts):
        context.say(f"[bold]{part}[/bold] after {time.monotonic() - started:,.0f} s")
        found += MEASURES[part](context, content)
        report.write(out, content)
    content["seconds"] = round(time.monotonic() - started)
    return found


def _no_op(context: Context, content: dict[str, Any]) -> list[Verdict]:
    samples: list[Sample]
    samples, content["noop_variants"] = throughput(context, "echo")
    content["noop"] = samples
    return targets.no_op(samples)


def _minilm(context: Context, content: dict[str, Any]) -> list[Verdict]:
    samples: list[Sample]
    samples, content["minilm_variants"] = throughput(context, "minilm")
    content["minilm"] = samples
    return targets.minilm(samples)


def _fixed(context: Context, content: dict[str, Any]) -> list[Verdict]:
    waited, submitted, cost = open_loop.fixed_rates(context)
    content |= {"open_loop": waited, "submit_only": submitted, "redis_cost": cost}
    return targets.fixed(waited, submitted, cost)


def _growth(context: Context, content: dict[str, Any]) -> list[Verdict]:
    levels = growth.measure(context.profile.growth, context.place)
    content["growth"] = levels
    for level in levels:
        context.say(
            f"{level.queued:>9,} queued: {level.enqueue_ms:g} ms for {growth.GROUP} tasks, "
            f"{level.redis_us_per_task:g} us of Redis CPU a task, {level.memory_mib:,.0f} MiB"
        )
    return targets.growth(levels)


def _start_up(context: Context, content: dict[str, Any]) -> list[Verdict]:
    taken = open_loop.start_up(context)
    content["start_up"] = taken
    context.say(f"first MiniLM answer: {taken.fresh_home} s, again {taken.again} s")
    return targets.start_up(taken)


MEASURES = {
    Part.NO_OP: _no_op,
    Part.MINILM: _minilm,
    Part.FIXED: _fixed,
    Part.GROWTH: _growth,
    Part.START_UP: _start_up,
}

if __name__ == "__main__":
    typer.run(main)
