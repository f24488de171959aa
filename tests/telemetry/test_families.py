"""Kinds of metrics of our own."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from inferstack.telemetry.families import Copied, Times

BUCKETS = (0.01, 0.1, 1)
SEEN = (0.0, 0.01, 0.02, 0.1, 0.5, 1.0, 7.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def text(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def test_times_read_as_the_histogram_of_the_library_does(registry: CollectorRegistry) -> None:
    theirs = CollectorRegistry()
    histogram = Histogram("t", "T.", ("route", "status"), buckets=BUCKETS, registry=theirs)
    counter = Counter("n", "N.", ("route", "status"), registry=theirs)
    times = Times("t", "T.", ("route", "status"), BUCKETS, counter=("n", "N."), registry=registry)
    for seconds in SEEN:
        for status in (200, 404):
            histogram.labels("/a", status).observe(seconds)
            counter.labels("/a", status).inc()
            times.observe(("/a", status), seconds)
    assert text(registry) == text(theirs)


def test_times_without_a_sample_are_declared(registry: CollectorRegistry) -> None:
    Times("t", "T.", ("a",), BUCKETS, registry=registry)
    assert text(registry) == "# HELP t T.\n# TYPE t histogram\n"
    with pytest.raises(ValueError, match="Duplicated"):
        Times("t", "Again.", ("a",), BUCKETS, registry=registry)


def test_what_is_copied_is_replaced_and_forgotten(registry: CollectorRegistry) -> None:
    depth = Copied(GaugeMetricFamily, "depth", "D.", ("model",), registry=registry)
    done = Copied(CounterMetricFamily, "done", "D.", ("model",), registry=registry)
    depth.show([(("a",), 1), (("b",), 2)])
    done.show([(("a",), 5)])
    depth.show([(("b",), 3)])
    found = {
        (family.type, sample.name, sample.labels["model"]): sample.value
        for family in text_string_to_metric_families(text(registry))
        for sample in family.samples
    }
    assert found == {("gauge", "depth", "b"): 3.0, ("counter", "done_total", "a"): 5.0}
