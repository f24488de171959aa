"""The Celery side of FastAPI + Celery + Redis: one task that runs the model on one input."""

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.peers.model import Model, options

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
    result_expires=60,
    worker_prefetch_multiplier=64,
    broker_pool_limit=64,
    redis_max_connections=256,
    worker_send_task_events=False,
)
_models: list[Model] = []


@worker_process_init.connect
def _load(**_: Any) -> None:
    _models.append(Model(options()))


@app.task(name="infer", ignore_result=True)
def infer(data: Any) -> None:
    """Runs the model and keeps nothing: what submit-only needs."""
    _models[0].predict([data])


@app.task(name="infer_and_keep")
def infer_and_keep(data: Any) -> Any:
    """Runs the model; the result goes to Redis."""
    return _models[0].predict([data])[0]
