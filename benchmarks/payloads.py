"""What is sent: the same bytes to every system, from fixed seeds."""

import json
import random
from typing import Any

SENTENCE = "The quick brown fox jumps over the lazy dog near the river bank."
SEED = 20261
COUNT = 2000
SHORTEST, LONGEST = 5, 250
MEDIAN_WORDS, SPREAD = 40, 0.9
"""Log-normal lengths, as queries and passages mix in practice: mean near 57 words."""

WORDS = (
    "time year people way day man thing woman life child world school state family student "
    "group country problem hand part place case week company system program question work "
    "government number night point home water room mother area money story fact month lot "
    "right study book eye job word business issue side kind head house service friend father "
    "power hour game line end member law car city community name president team minute idea "
    "body information back parent face others level office door health person art war history "
    "party result change morning reason research girl guy moment air teacher force education "
    "find tell ask seem feel try leave call good new first last long great little own other "
    "old big high different small large next early young important few public bad same able"
).split()


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
