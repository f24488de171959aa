"""Which replicas there are on Ray Serve: one application for each deployment, without HTTP."""

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from inferstack.config import Settings
from inferstack.engines.base import summary
from inferstack.engines.repository import ModelEntry
from inferstack.worker import gpu, scaling
from inferstack.worker.placement import Placement, place
from inferstack.worker.ray_replica import GRACE, SILENCE, Replica
from inferstack.worker.registrar import MOST_EARLY_DEATHS

log = logging.getLogger(__name__)

REPLICA_CPUS = 0.1
"""CPUs that Ray counts for a replica: threads are set explicitly, so Ray need not ration them."""
LOOK = 2.0
"""Seconds between two looks at the machines of a cluster."""


class Fleet:
    """One application for each model, with as many replicas as the devices call for."""

    def __init__(self, settings: Settings) -> None:
        """Places nothing yet."""
        self._settings = settings
        self._entries: list[ModelEntry] = []
        self._added = asyncio.Event()
        self._placed: dict[str, Placement] = {}
        self._version = uuid.uuid4().hex
        self._waiting = False
        self._placing = threading.Lock()

    def add(self, entries: Sequence[ModelEntry]) -> None:
        """Takes models on; those whose folder is wrong are left out."""
        self._entries += [entry for entry in entries if entry.config is not None]
        self._added.set()

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
        """Places what is added, and all again as the machines of a cluster come and go."""
        failing = False
        while True:
            try:
                await asyncio.to_thread(self.place)
                failing = False
            except Exception as error:
                # Ray's errors have no common root. While one of its parts starts again, the
                # replicas that there are go on.
                if not failing:
                    log.warning("cannot place replicas: %s", summary(error))
                failing = True
            again = LOOK if failing or self._settings.ray_address is not None else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._added.wait(), again)
            self._added.clear()

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
            return len(gpu.visible()), gpu.cores()
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
