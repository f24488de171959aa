"""One replica as Ray Serve hosts it. Ray imports it by name, in the replica's own process."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.deployment import Circuit
from inferstack.errors import EngineError, InferstackError
from inferstack.queue.connection import connect
from inferstack.queue.statistics import sample
from inferstack.worker import ray_settings, scaling
from inferstack.worker.host import LoadedModel, load, redis_url
from inferstack.worker.loop import Worker

log = logging.getLogger(__name__)

SILENCE = 15.0
"""Seconds without a sign of the worker's event loop after which a replica is unhealthy."""
BEGIN = 10.0
"""Seconds that its worker may take to begin, once the model is loaded."""


class Replica:
    """Hosts one worker, on a thread and an event loop of its own."""

    def __init__(self, model: str, version: int, settings: Settings, device: str) -> None:
        """Loads the model and starts to work; raises what `host.load` raises."""
        self._worker: Worker | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._windows = 0.0
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        ray_settings.set_up_logs("replica", settings)
        if settings.ray_address is None:
            _keep_to_loopback()
        # Serve calls this inside its event loop, and __del__ also if it raises.
        with ThreadPoolExecutor(1) as loader:
            self._loaded = loader.submit(load, model, version, settings, device).result()
        self._thread.start()
        self._ready.wait(BEGIN)

    def check_health(self) -> None:
        """Raises EngineError when the worker ended or no longer shows a sign of life."""
        if self._failure is not None or not self._thread.is_alive():
            raise EngineError(f"the worker ended: {self._failure}")
        if self._worker is not None and self._worker.silent_for() > SILENCE:
            raise EngineError("the worker's event loop is stuck")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `scaling.QueuePolicy` decides by."""
        busy = self._worker.busy() if self._worker is not None else 0.0
        return {scaling.WINDOWS: self._windows, scaling.BUSY: busy}

    async def __del__(self) -> None:
        """Drains: Serve awaits this before it ends the process."""
        if self._worker is not None:
            self._worker.drain()
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            log.exception("the worker ended")
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        sampling = asyncio.create_task(self._sample(self._loaded))
        try:
            await self._loaded.serve(self._made)
        finally:
            await end(sampling)

    def _made(self, worker: Worker) -> None:
        self._worker = worker
        self._ready.set()

    async def _sample(self, loaded: LoadedModel) -> None:
        """Watches the depth of the queue for auto-scaling."""
        name = loaded.entry.name
        window = loaded.entry.batch_size(loaded.settings) * loaded.entry.lookahead(loaded.settings)
        redis = connect(redis_url(loaded.settings), max_connections=1)
        while True:
            try:
                queue = (await sample(redis, [name]))[name]
                closed = queue.circuit is Circuit.CLOSED
                self._windows = queue.depth / window if closed else scaling.UNKNOWN
            except InferstackError:
                self._windows = scaling.UNKNOWN
            await asyncio.sleep(scaling.LOOK_BACK / 10)


def _keep_to_loopback() -> None:
    """Has Serve's server for calls between deployments listen on loopback.

    Serve binds it to all interfaces and has no setting for it (2.60, `replica.py`). It is
    started after the replica's constructor, which is where this is called.
    """
    from ray.serve._private import replica

    internals: Any = replica
    bind = internals.add_port_to_grpc_server

    def bind_to_loopback(server: Any, address: str) -> Any:
        return bind(server, address.replace("[::]", "127.0.0.1"))

    internals.add_port_to_grpc_server = bind_to_loopback
