"""Replicas on Ray Serve: `python -m inferstack.worker.serve`. The only home of Ray.

One Serve application for each deployment, without HTTP: work comes through Redis. Ray reads its
environment when it is imported, so it is imported in functions, after `main` has set it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inferstack import config
from inferstack.config import Settings
from inferstack.engines.base import summary
from inferstack.engines.repository import ModelEntry, scan
from inferstack.errors import EngineError, InferstackError
from inferstack.queue.background import end
from inferstack.queue.connection import connect
from inferstack.queue.statistics import sample
from inferstack.telemetry import pulse
from inferstack.worker import gpu, measures, ray_settings, scaling
from inferstack.worker.host import LoadedModel, load, redis_url
from inferstack.worker.loop import Worker
from inferstack.worker.placement import Placement, default_first, place
from inferstack.worker.registrar import Registrar

log = logging.getLogger(__name__)

REPLICA_CPUS = 0.1
"""CPUs that Ray counts for a replica: threads are set explicitly, so Ray need not ration them."""
SILENCE = 15.0
"""Seconds without a sign of the worker's event loop after which a replica is unhealthy."""
GRACE = 10.0
"""Seconds beyond the longest batch that a replica gets to drain."""
MOST_EARLY_DEATHS = 3
"""Times that a replica may end before it is ready until Serve gives its deployment up."""
GIVEN_UP = (
    f"its replica ended before it was ready, {MOST_EARLY_DEATHS} times in a row: see the worker's "
    "log (it is not tried again until a restart)"
)
FAILURE_CHECK = 1.0
"""Seconds between two looks at what Serve has given up."""
LOOK = 2.0
"""Seconds between two looks at the machines of a cluster."""


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
        self._ready.wait(GRACE)

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
            with contextlib.suppress(InferstackError):
                self._windows = (await sample(redis, [name]))[name].depth / window
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


class Fleet:
    """One application for each model, with as many replicas as the devices call for."""

    def __init__(self, settings: Settings) -> None:
        """Places nothing yet."""
        self._settings = settings
        self._entries: list[ModelEntry] = []
        self._placed: dict[str, Placement] = {}
        self._version = uuid.uuid4().hex
        self._waiting = False
        self._placing = threading.Lock()

    def add(self, entries: Sequence[ModelEntry]) -> None:
        """Takes models on; those whose folder is wrong are left out."""
        self._entries += [entry for entry in entries if entry.config is not None]

    def place(self) -> None:
        """Starts what is missing and rescales what has other devices now; waits for nothing."""
        from ray import serve

        with self._placing:
            changed = {
                name: placement
                for name, placement in self._placements().items()
                if placement != self._placed.get(name)
            }
            if not changed:
                return
            for name, placement in changed.items():
                log.info("%s gets %s", name, placement)
            targets = [
                self._target(entry, changed[entry.name])
                for entry in self._entries
                if entry.name in changed
            ]
            serve.run_many(
                targets,
                wait_for_ingress_deployment_creation=False,
                wait_for_applications_running=False,
            )
            self._placed |= changed

    async def follow(self) -> None:
        """Places again as the machines of a cluster come and go; those of this one do not."""
        failing = False
        while self._settings.ray_address is not None:
            await asyncio.sleep(LOOK)
            try:
                await asyncio.to_thread(self.place)
                failing = False
            except Exception as error:
                # Ray's errors have no common root. While one of its parts starts again, the
                # replicas that there are go on.
                if not failing:
                    log.warning("cannot follow the machines of the cluster: %s", summary(error))
                failing = True

    def _placements(self) -> dict[str, Placement]:
        """Where each model belongs on the devices that there are now, by its name."""
        gpus, cores = self._devices()
        if not cores:
            if not self._waiting:
                log.warning("no machine has joined the cluster yet: replicas wait for one")
            self._waiting = True
            return {}
        self._waiting = False
        return {
            entry.name: place(entry.ready_config, gpus, cores)
            for entry in self._entries
            # While the machines with GPUs are replaced, their models wait and do not move to CPUs.
            if gpus or not self._on_gpus(entry.name)
        }

    def _on_gpus(self, name: str) -> bool:
        return name in self._placed and self._placed[name].num_gpus > 0

    def _devices(self) -> tuple[int, int]:
        """GPUs and cores: of this machine, or of the whole cluster."""
        if self._settings.ray_address is None:
            return len(gpu.gpus()), gpu.cores()
        import ray

        cluster: Any = ray
        resources: Mapping[str, float] = cluster.cluster_resources()
        return int(resources.get("GPU", 0)), int(resources.get("CPU", 0))

    def _target(self, entry: ModelEntry, placement: Placement) -> Any:
        from ray import serve

        made: Any = serve.deployment(
            Replica,
            name="replica",
            ray_actor_options={"num_cpus": REPLICA_CPUS, "num_gpus": placement.num_gpus},
            health_check_period_s=1,
            health_check_timeout_s=SILENCE,
            graceful_shutdown_timeout_s=entry.ready_config.timeout + GRACE,
            graceful_shutdown_wait_loop_s=0.1,
            max_constructor_retry_count=MOST_EARLY_DEATHS,
            **scaling.options(placement),
        )
        # Else Serve makes one up each time, and restarts all replicas when only their number has
        # changed. There is no public way to say it (2.60, `api.py`).
        made._version = self._version
        bound = made.bind(entry.model, entry.version, self._settings, placement.device)
        return serve.RunTarget(bound, name=entry.name, route_prefix=None)


def start(settings: Settings) -> None:
    """Joins or starts a Ray cluster."""
    import ray
    from ray import serve

    local = settings.ray_address is None
    ray.init(
        address=settings.ray_address or "local",
        namespace="inferstack",
        include_dashboard=False if local else None,
        log_to_driver=True,
        logging_level=logging.WARNING,
        **ray_settings.options(settings) if local else {},
    )
    # At any other level, Serve tells each failure in a hundred lines; its replicas tell it in one.
    level = "DEBUG" if settings.log_level == "DEBUG" else "CRITICAL"
    # What Serve says in this process, in a format of its own, is that it was called.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config={"log_level": level})


def _given_up() -> list[str]:
    """Deployments that Serve does not try to start any more."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    applications = serve.status().applications
    failed = ApplicationStatus.DEPLOY_FAILED
    return [name for name, found in applications.items() if found.status == failed]


async def _report_given_up(registrar: Registrar) -> None:
    try:
        names = await asyncio.to_thread(_given_up)
    except Exception as error:
        # Ray's errors have no common root. Its controller may be starting again: look later.
        log.warning("cannot ask Serve for its applications: %s", summary(error))
        return
    for name in names:
        registrar.failed(name, GIVEN_UP)


def stop() -> None:
    """Drains every replica and, if it is ours, ends Ray."""
    import ray
    from ray import serve

    untyped: tuple[Any, ...] = (serve, ray)
    for part in untyped:
        part.shutdown()
    log.info("all replicas have ended")


async def register(entries: Sequence[ModelEntry], settings: Settings) -> None:
    """Keeps the registry true until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    redis = connect(redis_url(settings))
    registrar = Registrar(redis, entries, settings, tells_losses=True)
    registering = asyncio.create_task(registrar.run())
    fleet = Fleet(settings)
    first, rest = default_first(entries, settings)

    async def deploy_all() -> None:
        fleet.add(first)
        await asyncio.to_thread(fleet.place)
        await registrar.default_settled()
        fleet.add(rest)
        await asyncio.to_thread(fleet.place)

    async def watch() -> None:
        while True:
            await asyncio.sleep(FAILURE_CHECK)
            if registrar.starting:
                await _report_given_up(registrar)

    try:
        await asyncio.to_thread(start, settings)
        # Ray has installed handlers of its own meanwhile.
        _stop_on_signals(stopping)
        async with (
            pulse.beating("worker", settings.inferstack_home),
            measures.shown("worker", measures.of_devices, settings),
            asyncio.TaskGroup() as group,
        ):
            parts = [group.create_task(part) for part in (deploy_all(), fleet.follow(), watch())]
            await stopping.wait()
            for part in parts:
                part.cancel()
    finally:
        await end(registering)
        await redis.aclose()
        await asyncio.to_thread(stop)


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


def main() -> int:
    """Serves the whole repository; returns the exit code."""
    try:
        settings = config.settings()
        environment = config.as_environment(settings)
        wanted = ray_settings.environment(settings)
        if any(environment.get(name) != value for name, value in wanted.items()):
            # Not by changing the environment of this process: only config.py touches that.
            command = [sys.executable, "-P", "-m", "inferstack.worker.serve"]
            os.execve(sys.executable, command, {**environment, **wanted})
        ray_settings.set_up_logs("worker", settings)
        entries = scan(settings.model_path.absolute(), settings)
        if settings.ray_address is None:
            settings = ray_settings.leave_working_directory(settings)
        asyncio.run(register(entries, settings))
    except InferstackError as error:
        print(error.detail, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
