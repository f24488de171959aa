"""Many seeds of a world in which everything fails; cheap, so that there can be many."""

import pytest

from tests.faults.simulator import ENOUGH, simulate
from tests.faults.tally import count

SECONDS = 4.0


@pytest.mark.timeout(120)
def test_nothing_is_lost_or_doubled_whatever_dies(each_seed: int) -> None:
    tally = simulate(each_seed, SECONDS)
    count("queue", tally)
    assert not tally.violations, "\n".join(tally.violations[:20])
    assert tally.accepted >= ENOUGH
