"""A client of the application without a server."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.fakes import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as found:
        yield found
