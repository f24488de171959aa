"""How long and how often things are measured."""

import msgspec


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds."""

    name: str
    rounds: int
    seconds: float
    """Of one closed-loop measurement of the no-op."""
    model_seconds: float
    """The same with MiniLM: a batch takes a third of a second, and one that is cut off at the end
    counts as nothing, so there must be many."""
    warm_up: float
    connections: tuple[int, ...]
    mixed_count: int
    """Texts of mixed length in one measurement."""
    calibrate: bool
    """Whether each peer's best configuration is looked for."""
    open_seconds: float
    submit_seconds: float
    growth: tuple[int, ...]
    """Queue lengths at which an enqueue is measured."""


QUICK = Profile(
    name="quick",
    rounds=1,
    seconds=4.0,
    model_seconds=12.0,
    warm_up=1.0,
    connections=(64, 256),
    mixed_count=300,
    calibrate=False,
    open_seconds=10.0,
    submit_seconds=8.0,
    growth=(0, 100_000),
)
FULL = Profile(
    name="full",
    rounds=3,
    seconds=8.0,
    model_seconds=20.0,
    warm_up=2.0,
    connections=(64, 256, 1000),
    mixed_count=500,
    calibrate=True,
    open_seconds=60.0,
    submit_seconds=30.0,
    growth=(0, 100_000, 1_000_000),
)
PROFILES = {profile.name: profile for profile in (QUICK, FULL)}
