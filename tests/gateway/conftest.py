"""One real stack for all tests of the gateway; each gateway itself starts in a moment."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.cluster import until
from tests.gateway.gateway import Gateway
from tests.gateway.stack import SECOND, Replicated
from tests.gateway.tls import Certificate


@pytest.fixture(scope="package")
def stack() -> Iterator[Replicated]:
    """Two API processes, two replicas of a model, Redis, PostgreSQL, a recorder."""
    with Replicated() as running:
        asyncio.run(running.ready())
        asyncio.run(until(running.answers(SECOND)))
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))


@pytest.fixture(scope="package")
def caller(stack: Replicated) -> dict[str, str]:
    """Headers of somebody who may call."""
    return stack.login()


@pytest.fixture
def gateway(stack: Replicated) -> Iterator[Gateway]:
    """A gateway with its defaults in front of the stack, with the same limits as the API."""
    settings = stack.settings
    limits = {"MAX_BODY_BYTES": settings.max_body_bytes, "MAX_WAIT": settings.max_wait}
    with Gateway(*stack.addresses, **limits) as running:
        yield running
        print(running.errors()[-3000:])


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For localhost."""
    return Certificate(tmp_path_factory.mktemp("certificate"))
