"""Percentiles out of an exposition."""

import math
import sys
import threading

import pytest

from inferstack.api.histograms import Series, percentiles, quantile, samples
from inferstack.api.latest import Latest

NAME = "http_request_duration_seconds"
POST = 'route="/api/inference",method="POST"'


def exposition(process: str, status: int, *counts: int) -> str:
    bounds = ("0.01", "0.1", "1.0", "+Inf")
    return "".join(
        f'{NAME}_bucket{{process="{process}",le="{le}",{POST},status="{status}"}} {count}.0\n'
        for le, count in zip(bounds, counts, strict=True)
    )


def test_labels_may_hold_quotes_and_braces() -> None:
    line = r'a_bucket{process="x",model="say \"hi\" {}",le="+Inf"} 3.0'
    assert list(samples(line, "a_bucket")) == [
        ({"process": "x", "model": r"say \"hi\" {}", "le": "+Inf"}, 3.0)
    ]
    assert list(samples(line, "a")) == []


@pytest.mark.parametrize(("q", "seconds"), [(0.25, 0.01), (0.5, 0.055), (0.9, 0.64), (1.0, 1.0)])
def test_a_quantile_is_linear_inside_its_bucket(q: float, seconds: float) -> None:
    buckets = {0.01: 25.0, 0.1: 75.0, 1.0: 100.0, math.inf: 100.0}
    assert quantile(buckets, q) == pytest.approx(seconds)


def test_what_lies_beyond_the_last_bound_counts_as_that_bound() -> None:
    assert quantile({0.1: 0.0, math.inf: 5.0}, 0.5) == 0.1
    assert percentiles({0.1: 0.0, math.inf: 0.0}) is None
    assert percentiles({}) is None


def test_only_what_grew_since_the_first_scrape_counts() -> None:
    latest = Latest(2)
    latest.add((exposition("a", 200, 5, 5, 5, 5) + exposition("b", 200, 1, 1, 1, 1)).encode())
    assert latest.answers(200) is None
    latest.add((exposition("a", 200, 5, 9, 9, 9) + exposition("b", 200, 1, 1, 3, 3)).encode())
    found = latest.answers(200)
    assert found is not None
    assert found.count == 6
    assert 10 < found.p50 < 100 < found.p99
    assert latest.answers(202) is None
    latest.add(exposition("a", 202, 2, 2, 2, 2).encode())
    accepted = latest.answers(202)
    assert accepted is not None
    assert accepted.count == 2, "a status that was not there before is new as a whole"
    latest.add(b"")
    assert latest.answers(200) is None, "it has left the window"


def test_a_process_that_started_again_counts_from_nothing_and_one_that_was_busy_does_not() -> None:
    series = Series(10, seen=False)
    series.add({("a", math.inf): 10.0})
    series.add({("a", math.inf): 3.0})
    assert series.total() == {math.inf: 3.0}
    series.add({})
    series.add({("a", math.inf): 4.0})
    assert series.total() == {math.inf: 4.0}


def test_one_thread_may_add_while_another_takes_the_total() -> None:
    series = Series(15, seen=True)
    values = {("api-1", float(bound)): 1.0 for bound in range(20)}
    done = threading.Event()

    def add() -> None:
        while not done.is_set():
            series.add(values)

    adding = threading.Thread(target=add)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        adding.start()
        sizes = {len(series.total()) for _ in range(3000)}
    finally:
        done.set()
        adding.join()
        sys.setswitchinterval(usual)
    assert sizes <= {0, len(values)}
