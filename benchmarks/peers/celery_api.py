"""The HTTP side of FastAPI + Celery + Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import Body, FastAPI

from benchmarks.peers.celery_tasks import infer, infer_and_keep


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 256
    yield


app = FastAPI(lifespan=_lifespan)


@app.get("/health")
async def health() -> dict[str, bool]:
    """Whether it serves."""
    return {"ok": True}


@app.post("/submit")
def submit(data: Any = Body(embed=True)) -> dict[str, str]:
    """Sends the task and answers with its id."""
    return {"task_id": infer.delay(data).id}


@app.post("/infer")
def run(data: Any = Body(embed=True)) -> dict[str, Any]:
    """Sends the task and waits for its result."""
    return {"result": infer_and_keep.delay(data).get(timeout=60)}
