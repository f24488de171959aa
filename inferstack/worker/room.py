"""The GPUs that are left while models are placed. Pure."""

from collections.abc import Sequence

UNIT = 10_000
"""Parts of a GPU that Ray tells apart."""
MOST_SHARING = 100
"""Replicas that share one GPU at most, where nobody says how many."""


class Room:
    """Hands out GPUs as Ray does: whole ones of one machine, or a part of one."""

    def __init__(self, machines: Sequence[int]) -> None:
        """Args: machines: GPUs of each machine."""
        self._free = [UNIT] * sum(machines)
        """Parts of each GPU that are left."""
        ends = [sum(machines[: index + 1]) for index in range(len(machines))]
        self._machines = [range(end - gpus, end) for end, gpus in zip(ends, machines, strict=True)]

    def take(self, num_gpus: float) -> tuple[int, ...] | None:
        """Hands out GPUs for one replica, counted over all machines; None if it has no room."""
        parts = _parts(num_gpus)
        if parts < UNIT:
            fitting = [gpu for gpu, free in enumerate(self._free) if free >= parts]
            # The one that has the least left, so that others stay whole.
            found = sorted(fitting, key=self._free.__getitem__)[:1]
        else:
            wanted = parts // UNIT
            found = next((idle[:wanted] for idle in self._idle() if len(idle) >= wanted), [])
        for gpu in found:
            self._free[gpu] -= min(parts, UNIT)
        return tuple(found) or None

    def shared_by(self, replicas: int) -> float:
        """The largest equal part of a GPU for which so many replicas have room; 1 if none is."""
        for among in range(1, MOST_SHARING + 1):
            parts = UNIT // among
            if sum(free // parts for free in self._free) >= replicas:
                return parts / UNIT
        return 1.0

    def left(self, num_gpus: float) -> float:
        """GPUs that are left for one replica of such a size."""
        if _parts(num_gpus) < UNIT:
            return max(self._free, default=0) / UNIT
        return max(map(len, self._idle()), default=0)

    def _idle(self) -> list[list[int]]:
        """The whole GPUs of each machine."""
        return [[gpu for gpu in gpus if self._free[gpu] == UNIT] for gpus in self._machines]


def _parts(num_gpus: float) -> int:
    return max(1, round(num_gpus * UNIT))
