"""What is sent: the same bytes to every system, from fixed seeds."""

import json
import random
from pathlib import Path
from typing import Any

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank."
SEED = 20261
COUNT = 2000
SHORTEST, LONGEST = 5, 250
MEDIAN_WORDS, SPREAD = 40, 0.9
"""Log-normal lengths, as queries and passages mix in practice: mean near 57 words."""

WORDS = Path(__file__).with_name("words.txt").read_text().split()
"""Each is one token for MiniLM, so that 250 words fit its 256 tokens."""


def echo() -> list[dict[str, Any]]:
    """The input of the no-op model."""
    return [{"text": SENTENCE}]


def same_length() -> list[dict[str, Any]]:
    """One sentence of 13 words, every time."""
    return [{"text": SENTENCE}]


def mixed_length(count: int = COUNT, seed: int = SEED) -> list[dict[str, Any]]:
    """Texts of 5 to 250 words, in random order, the same for the same seed."""
    source = random.Random(seed)
    return [{"text": _text(source)} for _ in range(count)]


def _text(source: random.Random) -> str:
    drawn = MEDIAN_WORDS * source.lognormvariate(0, SPREAD)
    words = min(LONGEST, max(SHORTEST, round(drawn)))
    return " ".join(source.choices(WORDS, k=words))


INPUTS = {"echo": echo, "same": same_length, "mixed": mixed_length}


def bodies(kind: str, **extra: Any) -> list[bytes]:
    """JSON request bodies: `{"data": input}` and what a system needs besides.

    Args:
        kind: `echo`, `same` or `mixed`.
        extra: more members of the body, such as `model`.
    """
    return [json.dumps({"data": data, **extra}).encode() for data in INPUTS[kind]()]
