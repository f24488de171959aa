"""Refusals say when to come back, and do not send all who were refused back at once."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferstack import errors
from inferstack.api.dead_letter_views import redriven_view
from inferstack.api.problems import problem
from inferstack.api.views import batch_view
from inferstack.errors import InferstackError, QueueFullError
from inferstack.lifecycle.dead_letters import Redriven

REFUSALS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, InferstackError)
    and (kind.status in (429, 503) or kind.usual_retry_after is not None)
]
CALLERS = 200


def told(error: InferstackError) -> tuple[int, float]:
    """What one caller is told: the header, and the more exact number in the body."""
    _, headers, body = problem(error, "/api/inference")
    return int(dict(headers)[b"retry-after"]), body["retry_after"]


@given(kind=st.sampled_from(REFUSALS), seconds=st.floats(0.0, 3600.0))
def test_nobody_is_told_to_come_back_earlier_or_much_later_than_what_is_known(
    kind: type[InferstackError], seconds: float
) -> None:
    header, body = told(kind(retry_after=seconds))
    whole = max(1, math.ceil(seconds))
    assert whole <= header <= round(whole + max(1.0, whole / 4))
    assert seconds <= body <= seconds * 1.25


@pytest.mark.parametrize("kind", [kind for kind in REFUSALS if kind.usual_retry_after])
def test_every_usual_time_is_scattered(kind: type[InferstackError]) -> None:
    answers = [told(kind()) for _ in range(CALLERS)]
    (_, most), *others = Counter(header for header, _ in answers).most_common()
    assert others
    assert most < CALLERS * 0.9
    assert len({body for _, body in answers}) == CALLERS


def _of_a_batch(refused: list[QueueFullError]) -> list[Any]:
    return batch_view([*refused], "/api/inference/batch")


def _of_redrives(refused: list[QueueFullError]) -> list[Any]:
    return redriven_view(
        [Redriven("task", error) for error in refused], "/api/dead-letters/redrive"
    )


@pytest.mark.parametrize("answers", [_of_a_batch, _of_redrives])
def test_what_is_refused_among_many_is_scattered_too(
    answers: Callable[[list[QueueFullError]], list[Any]],
) -> None:
    times = [item["retry_after"] for item in answers([QueueFullError(retry_after=8.0)] * CALLERS)]
    assert len(set(times)) == CALLERS
    assert 8.0 <= min(times) < max(times) <= 10.0
