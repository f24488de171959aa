"""Closed-loop throughput: every system in turn, round after round (A B C, C B A, ...).

These machines are noisy, so what counts is the middle one of interleaved rounds, and only
relative to what ran in the same rounds.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks import ceiling
from benchmarks.client import Client, Sample, Target
from benchmarks.deploy import MODELS, deployed
from benchmarks.processes import StartError
from benchmarks.profiles import Profile
from benchmarks.systems import FLOORS, PEERS, Peer, Variant

CALIBRATION_CONNECTIONS = 64
HEADLINE = (64, 256)
"""Connections that the targets are about; 1000 is measured for information."""

CEILINGS = (("raw-1x2", 1, 2), ("raw-2x1", 2, 1))
"""Name, processes, threads: MiniLM without any serving, at batch 64."""


class Context(msgspec.Struct):
    """What every measurement needs."""

    profile: Profile
    client: Client
    python: Path
    """The peers' interpreter."""
    place: Path
    """Folder for homes and logs."""
    say: Callable[[str], None]
    up_options: tuple[str, ...] = ()
    only: frozenset[str] = frozenset()
    """Systems to measure; all if empty."""
    skipped: dict[str, str] = {}
    """Systems that did not come up, and why."""


def peers(context: Context, model: str) -> list[Peer]:
    """The peers that serve a model, with the empty FastAPI for the no-op."""
    known = [peer for peer in PEERS if model in peer.models]
    if model == "echo":
        known = [*FLOORS, *known]
    return [peer for peer in known if not context.only or peer.name in context.only]


def calibrate(context: Context, model: str) -> dict[str, Variant]:
    """The best of each peer's configurations, by a short run; the first one in a quick profile."""
    kind = "echo" if model == "echo" else "same"
    chosen = {}
    for peer in peers(context, model):
        tried: dict[Variant, float] = {}
        for variant in peer.variants if context.profile.calibrate else peer.variants[:1]:
            if len(peer.variants) == 1 or not context.profile.calibrate:
                tried[variant] = 0.0
                continue
            with started(context, peer, model, [kind], variant) as targets:
                for target in targets.values():
                    tried[variant] = _calibration_rate(context, target, kind)
                    context.say(f"{peer.name}, {variant}: {tried[variant]:,.0f} req/s")
        if tried:
            chosen[peer.name] = max(tried, key=lambda variant: tried[variant])
    return chosen


def _calibration_rate(context: Context, target: Target, kind: str) -> float:
    seconds = context.profile.warm_up
    context.client.closed(target, kind, CALIBRATION_CONNECTIONS, seconds, 0)
    context.client.settle(target)
    return context.client.closed(target, kind, CALIBRATION_CONNECTIONS, 2 * seconds, 0).rate


@contextmanager
def started(
    context: Context, peer: Peer, model: str, kinds: list[str], variant: Variant
) -> Iterator[dict[str, Target]]:
    """A running peer; no targets, and a note, if it does not come up."""
    running = peer.running(context.python, model, kinds, variant, context.place)
    try:
        targets = running.__enter__()
    except (StartError, RuntimeError, OSError) as error:
        context.skipped[peer.name] = str(error)
        context.say(f"[yellow]{peer.name} is left out: {error}[/yellow]")
        yield {}
        return
    try:
        yield targets
    finally:
        running.__exit__(None, None, None)


def throughput(context: Context, model: str) -> tuple[list[Sample], dict[str, str]]:
    """Measures all systems with one model.

    Returns:
        Every sample, and each peer's chosen configuration.
    """
    kinds = ["echo"] if model == "echo" else ["same", "mixed"]
    variants = calibrate(context, model)
    samples: list[Sample] = []
    for number in range(1, context.profile.rounds + 1):
        turn: list[Peer | None] = [None, *peers(context, model)]
        if context.only and "inferstack" not in context.only:
            turn.remove(None)
        for peer in turn if number % 2 else reversed(turn):
            if peer is None:
                samples += _inferstack(context, model, kinds, number)
            elif peer.name in variants and peer.name not in context.skipped:
                with started(context, peer, model, kinds, variants[peer.name]) as targets:
                    samples += _cells(context, targets, number)
        if model == "minilm":
            samples += _ceilings(context, kinds, number)
    return samples, {name: str(variant) for name, variant in variants.items()}


def _inferstack(context: Context, model: str, kinds: list[str], number: int) -> list[Sample]:
    with deployed(context.place, model, kinds[0], context.up_options) as stack:
        before = stack.archived()
        targets = {kind: stack.target(kind) for kind in kinds}
        samples = _cells(context, targets, number)
        stack.settle(f"{MODELS[kinds[0]]}:1")
        kept, served = stack.archived() - before, sum(sample.completed for sample in samples)
        if kept < served:
            raise RuntimeError(f"{served} tasks were answered but only {kept} are in PostgreSQL")
    return samples


def _cells(context: Context, targets: dict[str, Target], number: int) -> list[Sample]:
    profile, client, samples = context.profile, context.client, []
    for kind, target in targets.items():
        client.closed(target, kind, CALIBRATION_CONNECTIONS, profile.warm_up, 0)
        client.settle(target)
        for connections in profile.connections:
            if number > 1 and connections not in HEADLINE:
                continue  # for information: once is enough
            if kind == "mixed":
                count = max(profile.mixed_count, connections)
                sample = client.fixed(target, kind, connections, count, number)
            else:
                seconds = profile.seconds if kind == "echo" else profile.model_seconds
                sample = client.closed(target, kind, connections, seconds, number)
                client.settle(target)
            context.say(line(sample))
            samples.append(sample)
    return samples


def line(sample: Sample) -> str:
    """A sample as progress."""
    failed = f", [red]{sample.failed} failed[/red]" if sample.failed else ""
    return (
        f"round {sample.round}  {sample.system:16} {sample.kind:6} {sample.connections:5} conn  "
        f"{sample.rate:10,.1f}/s  p50 {sample.latency_ms.get('p50', 0):,.1f} ms  "
        f"p99 {sample.latency_ms.get('p99', 0):,.1f} ms{failed}"
    )


def _ceilings(context: Context, kinds: list[str], number: int) -> list[Sample]:
    samples, seconds = [], context.profile.model_seconds
    for kind in kinds:
        for name, processes, threads in CEILINGS:
            rate = ceiling.measure(context.place, kind, processes, threads, seconds)
            sample = Sample(name, kind, 0, number, round(rate, 1), 0, 0, {})
            context.say(line(sample))
            samples.append(sample)
    return samples
