"""One cluster a module: starting it costs seconds."""

from collections.abc import Iterator

import pytest

from tests.faults.cluster import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The real processes, with short leases and a small outbox."""
    with Cluster(max_outbox=400) as running:
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))
