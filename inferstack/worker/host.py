"""Brings a replica up: loads its model, joins the queue, works until told to stop."""

import asyncio
import contextlib
import faulthandler
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import msgspec

from inferstack import failpoint
from inferstack.batching import CostFit
from inferstack.config import Settings, require
from inferstack.deployment import DeploymentState
from inferstack.engines.base import Engine, create
from inferstack.engines.repository import ModelEntry, find, scan
from inferstack.errors import InferstackError, ModelLoadError
from inferstack.lifecycle import arrival
from inferstack.lifecycle.replica import ReplicaSession
from inferstack.queue.connection import connect
from inferstack.queue.registry import Registry
from inferstack.storage.objects import ObjectStore
from inferstack.telemetry.exposure import shown
from inferstack.wording import summary
from inferstack.worker import gpu, measures
from inferstack.worker.feed import Appetite
from inferstack.worker.loop import Worker

log = logging.getLogger(__name__)

SLOW_LOAD = 300.0
"""Seconds between two lines about a model that is not loaded yet."""


class LoadedModel:
    """A model that is ready to serve."""

    def __init__(self, entry: ModelEntry, settings: Settings, device: str | None) -> None:
        """Loads and warms up; takes seconds.

        Raises:
            ModelFolderError: the folder is broken.
            ModelLoadError: the model's code or files raised.
        """
        self.entry = entry
        self.settings = settings
        self.fit = CostFit()
        with _told_while_slow(entry.name):
            self.engine: Engine = create(entry, settings, device)
            try:
                self.engine.warm_up(self.fit)
            except ModelLoadError:
                raise
            except (Exception, SystemExit) as error:
                raise ModelLoadError(f"warm-up: {summary(error)}") from error

    async def serve(self, made: Callable[[Worker], object]) -> None:
        """Works until the worker is drained.

        Args:
            made: gets the worker before it runs, to be able to drain it.
        """
        # The compute thread and the event loop hand each other every batch: Python's 5 ms of
        # holding on to the interpreter would be most of a fast batch's time.
        sys.setswitchinterval(0.0005)
        settings = self.settings
        failpoint.arm(settings)
        deployment = self.entry.deployment(settings)
        redis = connect(redis_url(settings))
        store = ObjectStore.from_settings(settings)
        session = ReplicaSession(redis, deployment, store, worker_name(), settings)
        appetite = Appetite(
            deployment.batch_size, self.entry.lookahead(settings), self.entry.batch_wait(settings)
        )
        worker = Worker(session, self.engine, deployment, settings, appetite=appetite, fit=self.fit)
        made(worker)
        device = gpu.on_machine(self.engine.device)
        log.info("serving %s on %s as %s", self.entry.name, device, session.worker)
        try:
            async with shown("replica", measures.of_replica, settings):
                await worker.run()
        finally:
            await redis.aclose()
            self.engine.close()


@contextlib.contextmanager
def _told_while_slow(name: str) -> Iterator[None]:
    """Tells every SLOW_LOAD seconds that a model still loads, and where: nothing else ends that."""
    loaded = threading.Event()

    def tell() -> None:
        began = time.monotonic()
        while not loaded.wait(SLOW_LOAD):
            minutes = (time.monotonic() - began) / 60
            log.warning("%s still loads or warms up after %.0f min, see stderr", name, minutes)
            faulthandler.dump_traceback()

    # Without a thread to be had, it loads all the same.
    with contextlib.suppress(RuntimeError):
        threading.Thread(target=tell, name="slow-load", daemon=True).start()
    try:
        yield
    finally:
        loaded.set()


def load(model: str, version: int, settings: Settings, device: str | None) -> LoadedModel:
    """Finds and loads a model version.

    Before a failure is raised it is put into the registry, unless other replicas serve the model.

    Raises:
        ModelFolderError: the folder is broken or missing.
        ModelLoadError: the model's code or files raised.
    """
    entry = find(scan(settings.model_path, settings), model, version)
    try:
        return LoadedModel(entry, settings, device)
    except InferstackError as error:
        log.exception("cannot load %s", entry.name)
        asyncio.run(report_failure(entry, settings, error.detail))
        raise


def redis_url(settings: Settings) -> str:
    """Where the queue is.

    Raises:
        ConfigurationError: REDIS_URL is not set.
    """
    require(settings, "redis_url")
    return str(settings.redis_url)


async def services_arrived(settings: Settings, stopping: asyncio.Event) -> bool:
    """Waits for what replicas need; errors and result as of `arrival.arrived`."""
    redis = connect(redis_url(settings), max_connections=1)
    needs = [arrival.queue(redis), arrival.objects(ObjectStore.from_settings(settings))]
    try:
        return await arrival.arrived(needs, stopping)
    finally:
        await redis.aclose()


def worker_name() -> str:
    """A name that no other process has ever had."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


async def report_failure(entry: ModelEntry, settings: Settings, reason: str) -> None:
    """Puts into the registry that a model cannot be loaded, unless other replicas serve it."""
    redis = connect(redis_url(settings))
    failed = msgspec.structs.replace(
        entry.deployment(settings), state=DeploymentState.FAILED, reason=reason
    )
    registry = Registry(redis)
    try:
        if any(replica.state == "ready" for replica in await registry.replicas(entry.name)):
            log.warning("%s is still served by other replicas", entry.name)
            return
        await registry.put(failed)
    except InferstackError as error:
        log.warning("cannot report that %s failed: %s", entry.name, error)
    finally:
        await redis.aclose()
