"""When to try again. Pure: time and randomness come from the caller."""

import random


def full_jitter(attempt: int, base: float, cap: float, rng: random.Random) -> float:
    """Seconds to wait before the next attempt.

    Exponential back-off with full jitter: uniform in [0, min(cap, base * 2**(attempt-1))]
    (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Args:
        attempt: how many attempts have failed, from 1.
        base: upper bound of the first delay, in seconds.
        cap: upper bound of every delay, in seconds.
        rng: source of randomness.
    """
    exponent = min(attempt - 1, 62)
    return rng.uniform(0.0, min(cap, base * 2.0**exponent))
