"""Where a key went is where it goes, until it is moved; against a dictionary, in any order."""

import asyncio
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from inferstack.queue.connection import connect
from inferstack.queue.key_routes import KeyRoutes
from tests.queue import machine

# Tenants and keys whose plain concatenations are the same.
NAMES = st.sampled_from(["a", "a:b", "b", "b:c", "c", "1:a", "", "\N{SNOWMAN}\0"])
DEPLOYMENTS = st.sampled_from(["echo:1", "echo:2", "echo:3"])


class Routes(machine.Machine):
    """The script and a dictionary side by side."""

    SCRIPTS: ClassVar = frozenset({"route"})

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.redis = connect(self.url)
        self.routes = KeyRoutes(self.redis, 3600)
        self.known: dict[tuple[str, str], str] = {}

    def teardown(self) -> None:
        self.loop.run_until_complete(self.redis.aclose())
        self.loop.close()

    @initialize()
    def start(self) -> None:
        self.loop.run_until_complete(self.redis.flushall())

    @rule(asked=st.lists(st.tuples(NAMES, NAMES, DEPLOYMENTS), min_size=1, max_size=5))
    def route(self, asked: list[tuple[str, str, str]]) -> None:
        """Many at once are one call, in which the first to name a key decides."""

        async def ask() -> list[str]:
            return await asyncio.gather(*(self.routes.route(*each) for each in asked))

        expected = [
            self.known.setdefault((tenant, key), deployment) for tenant, key, deployment in asked
        ]
        assert self.loop.run_until_complete(ask()) == expected

    @rule(tenant=NAMES, key=NAMES, deployment=DEPLOYMENTS)
    def move(self, tenant: str, key: str, deployment: str) -> None:
        self.loop.run_until_complete(self.routes.move(tenant, key, deployment))
        self.known[tenant, key] = deployment


def test_a_key_stays_where_it_went_until_it_is_moved(
    clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.run(Routes, clean_redis_url, monkeypatch, examples=30, steps=30)


async def test_a_key_is_remembered_no_shorter_by_a_move_to_where_it_is(
    clean_redis_url: str,
) -> None:
    """Of two that go on to the fallback, one was accepted there before the other moves the key."""
    redis = connect(clean_redis_url)
    routes = KeyRoutes(redis, 1.0)
    await routes.route("a", "k", "echo:1")
    (name,) = await redis.keys("*")
    await redis.pexpire(name, 60_000)
    await routes.move("a", "k", "echo:1")
    await routes.route("a", "k", "echo:2")
    assert await redis.pttl(name) > 50_000
    await routes.move("a", "k", "echo:2")
    assert await redis.pttl(name) <= 1000
    await redis.aclose()
