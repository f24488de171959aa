"""The whole application over real services, without a server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx

from inferstack.api.app import create_app
from inferstack.api.edge import Edge
from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.lifecycle.replica import ReplicaSession
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.storage.objects import ObjectStore
from inferstack.task import Execution

ECHO = Deployment(model="echo", version=1, state=DeploymentState.READY)


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which knows `echo`."""
    redis = connect(str(settings.redis_url))
    await Registry(redis).put(ECHO)
    await redis.aclose()
    edge = create_app(settings)
    transport = httpx.ASGITransport(app=edge)
    async with (
        living(edge),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def living(edge: Edge) -> AsyncIterator[None]:
    """Runs the application's lifespan."""
    inbox: asyncio.Queue[str] = asyncio.Queue()
    outbox: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> dict[str, str]:
        return {"type": await inbox.get()}

    async def send(message: dict[str, str]) -> None:
        await outbox.put(message["type"])

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    task = asyncio.create_task(edge(scope, receive, send))  # type: ignore[arg-type]
    await inbox.put("lifespan.startup")
    assert await outbox.get() == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put("lifespan.shutdown")
        assert await outbox.get() == "lifespan.shutdown.complete"
        await task


@contextlib.asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[None]:
    """A replica of `echo` that gives every input back."""
    redis = connect(str(settings.redis_url))
    store = ObjectStore.from_settings(settings)
    session = ReplicaSession(redis, ECHO, store, "test:1:a", settings)

    async def work() -> None:
        while True:
            for lease in await session.claim(32):
                await session.begin([lease])
                result = httpx.Response(200, json=lease.spec.data).content
                await session.complete([(lease, result, Execution("test:1:a", 1.0, 2.0, 1))])
            await session.wait(0.1)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await session.leave()
        await redis.aclose()
