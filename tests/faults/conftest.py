"""One cluster a module: starting it costs seconds."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from tests.faults.cluster import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The real processes, with short leases and a small outbox."""
    with Cluster(max_outbox=400) as running:
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    """A process that floods, so that the one that measures has nothing else to do."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        yield pool
