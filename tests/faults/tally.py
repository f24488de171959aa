"""The numbers that the suite prints last."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Tally:
    """What one profile has done to the system, and what that did."""

    faults: int = 0
    """Faults injected."""
    accepted: int = 0
    """Tasks that a client was told of."""
    lost: int = 0
    """Accepted tasks without a terminal state, or without their place in history."""
    doubled: int = 0
    """Submits that made two tasks, and tasks with two results."""
    violations: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Counts another one in."""
        self.faults += other.faults
        self.accepted += other.accepted
        self.lost += other.lost
        self.doubled += other.doubled
        self.violations += other.violations


PROFILES: dict[str, Tally] = {}
"""Of this run, by name: `queue` is the simulator, `stack` the real processes."""


NOTES: list[str] = []
"""What was measured, and what could not be tested here: printed behind the numbers."""


def count(profile: str, tally: Tally) -> None:
    """Adds to a profile."""
    PROFILES.setdefault(profile, Tally()).add(tally)


def give() -> dict[str, Any]:
    """All of it, for another process of this run."""
    return {"profiles": {name: asdict(tally) for name, tally in PROFILES.items()}, "notes": NOTES}


def take(given: dict[str, Any]) -> None:
    """Adds what another process has given."""
    for name, fields in given["profiles"].items():
        count(name, Tally(**fields))
    NOTES.extend(given["notes"])


def lines(seed: int) -> Iterator[str]:
    """What the suite prints last."""
    for name, tally in sorted(PROFILES.items()):
        yield (
            f"faults: {name}: {tally.faults} injected, {tally.accepted} tasks accepted, "
            f"{tally.lost} lost, {tally.doubled} doubled, seed {seed}"
        )
        yield from (f"  {violation}" for violation in tally.violations[:10])
    yield from (f"faults: {note}" for note in NOTES)
