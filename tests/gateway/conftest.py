"""One real stack for all tests of the gateway; each gateway itself starts in a moment."""

from collections.abc import Iterator

import pytest
import redis

from inferstack.storage.migrations import migrate
from tests.gateway.gateway import Gateway
from tests.gateway.stack import Replicated
from tests.gateway.tls import Certificate
from tests.services import RedisServer, create_database, drop_database

PAGE = "<!doctype html><title>inferstack</title>"
SCRIPT = "console.log('a script that is long enough to be worth compressing');" * 40


@pytest.fixture(scope="package")
def stack(redis_server: RedisServer, postgres_server_url: str) -> Iterator[Replicated]:
    """Two API processes and a replica of a model, on the servers of the session."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    database = create_database(postgres_server_url)
    migrate(database)
    with Replicated(redis_server.url, database) as running:
        yield running
        print(*(f"--- {p.name}\n{running.log(p.name)[-3000:]}" for p in running.processes))
    drop_database(postgres_server_url, database)


@pytest.fixture(scope="package")
def caller(stack: Replicated) -> dict[str, str]:
    """Headers of somebody who may call."""
    return stack.login()


@pytest.fixture(scope="package")
def gateway(stack: Replicated) -> Iterator[Gateway]:
    """A gateway with its defaults and a UI in front of the stack, with the limits of the API."""
    settings = stack.settings
    limits = {"MAX_BODY_BYTES": settings.max_body_bytes, "MAX_WAIT": settings.max_wait}
    with Gateway(*stack.addresses, **limits) as running:
        (running.ui / "assets").mkdir(parents=True)
        (running.ui / "index.html").write_text(PAGE)
        (running.ui / "assets" / "app-1a2b.js").write_text(SCRIPT)
        yield running
        print(running.errors()[-3000:])


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """For localhost."""
    return Certificate(tmp_path_factory.mktemp("certificate"))
