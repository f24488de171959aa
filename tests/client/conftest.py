"""Both clients, seen as one: every test of a call runs against each of them."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from inferstack.client import AsyncClient, Client, Retries, Timeouts
from tests.client.server import Contract, Server

QUICK = Retries(attempts=4, base=0.01, cap=0.02, budget=5.0)


class Blocking:
    """An asynchronous client whose methods block."""

    def __init__(self, **options: Any) -> None:
        """Makes the client and an event loop for it."""
        self._runner = asyncio.Runner()
        self._client = AsyncClient(**options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A method of the client that returns when its coroutine does."""
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            async def run() -> Any:
                answer = method(*args, **kwargs)
                return await answer if inspect.isawaitable(answer) else answer

            return self._runner.run(run())

        return call

    def shut(self) -> None:
        """Closes the client and its loop."""
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFERSTACK_URL", "INFERSTACK_TOKEN", "INFERSTACK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that behaves until told otherwise."""
    with Server() as running:
        yield running


@pytest.fixture
def contract(server: Server) -> Contract:
    """What the server holds."""
    return server.contract


@pytest.fixture(params=["blocking", "asynchronous"])
def make(request: pytest.FixtureRequest, server: Server) -> Iterator[Callable[..., Any]]:
    """Makes a client of either kind."""
    made: list[Any] = []

    def build(**options: Any) -> Any:
        defaults: dict[str, Any] = {
            "url": server.url,
            "retries": QUICK,
            "timeouts": Timeouts(answer=2.0),
        }
        kind = Client if request.param == "blocking" else Blocking
        made.append(kind(**(defaults | options)))
        return made[-1]

    yield build
    for client in made:
        client.close() if isinstance(client, Client) else client.shut()


@pytest.fixture
def client(make: Callable[..., Any]) -> Any:
    """A client of either kind with short delays."""
    return make()
