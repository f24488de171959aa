"""Delays between attempts."""

import random

from hypothesis import given
from hypothesis import strategies as st

from inferstack.retry import full_jitter


@given(st.integers(1, 10_000), st.floats(0, 100), st.floats(0, 1000), st.integers())
def test_a_delay_never_exceeds_its_bound(attempt: int, base: float, cap: float, seed: int) -> None:
    delay = full_jitter(attempt, base, cap, random.Random(seed))
    assert 0 <= delay <= min(cap, base * 2.0 ** min(attempt - 1, 62))


def test_delays_spread_over_the_whole_range() -> None:
    rng = random.Random(1)
    delays = [full_jitter(4, 1.0, 60.0, rng) for _ in range(1000)]
    assert min(delays) < 0.5
    assert max(delays) > 7.5
