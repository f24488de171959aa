"""Which replicas there are on Ray Serve: one application for each deployment, without HTTP."""

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from inferstack.config import Settings
from inferstack.engines.repository import ModelEntry
from inferstack.wording import summary
from inferstack.worker import drain, gpu, scaling
from inferstack.worker.placement import Placement, place
from inferstack.worker.ray_replica import SILENCE, Replica
from inferstack.worker.registrar import MOST_EARLY_DEATHS

log = logging.getLogger(__name__)

REPLICA_CPUS = 0.1
"""CPUs that Ray counts for a replica: threads are set explicitly, so Ray need not ration them."""
LOOK = 2.0
"""Seconds between two looks at the machines of a cluster."""
JOINING = 60.0
"""Seconds for machines to join or to come back: so long a model without room waits before it counts
as failed, and one with another share of a GPU before its replicas restart."""


class Fleet:
    """One application for each model, with as many replicas as the devices call for."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        settings: Settings,
        report: Callable[[str, str], object],
    ) -> None:
        """Places nothing yet.

        Args:
            entries: every model, by rank: they share the GPUs from the start.
            settings: where the cluster is, if it is not this machine.
            report: told the name of a deployment that finds no room, and why.
        """
        self._settings = settings
        self._entries = [entry for entry in entries if entry.config is not None]
        self._report = report
        self._added: set[str] = set()
        self._news = asyncio.Event()
        self._placed: dict[str, Placement] = {}
        self._since: dict[str, tuple[float, float]] = {}
        """The share of models without room, or with another share than before, and since when."""
        self._version = uuid.uuid4().hex
        self._waiting = False
        self._placing = threading.Lock()

    def add(self, entries: Sequence[ModelEntry]) -> None:
        """Lets models start."""
        self._added |= {entry.name for entry in entries}
        self._news.set()

    def place(self) -> None:
        """Starts what is missing and rescales what has other devices now; waits for nothing."""
        with self._placing:
            changed = {
                name: placement
                for name, placement in self._placements().items()
                if name in self._added
                and self._may_start(name, placement)
                and placement != self._placed.get(name)
            }
            if not changed:
                return
            for name, placement in changed.items():
                log.info("%s gets %s", name, placement)
            self._start(changed)
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
                await asyncio.wait_for(self._news.wait(), again)
            self._news.clear()

    def _placements(self) -> dict[str, Placement]:
        """Where each model belongs on the devices that there are now, by its name."""
        machines, cores = self._devices()
        if not cores:
            if not self._waiting:
                log.warning("no machine has joined the cluster yet: replicas wait for one")
            self._waiting = True
            return {}
        self._waiting = False
        return {
            name: placement
            for name, placement in place(
                self._entries, machines, cores, growing=self._settings.ray_autoscaling
            ).items()
            # While the machines with GPUs are replaced, their models wait and do not move to CPUs.
            if sum(machines) or not self._on_gpus(name)
        }

    def _may_start(self, name: str, placement: Placement) -> bool:
        """Whether this placement holds; one that may be over soon has to last.

        A model without room is reported then, and starts where machines are added for it.
        """
        placed = self._placed.get(name)
        restarts = placed is not None and placed.num_gpus != placement.num_gpus
        if not placement.stranded and not restarts:
            self._since.pop(name, None)
            return True
        if self._settings.ray_address is not None and not self._lasts(name, placement.num_gpus):
            return False
        if not placement.stranded:
            return True
        self._report(name, str(placement.shortage))
        return self._settings.ray_autoscaling

    def _lasts(self, name: str, num_gpus: float) -> bool:
        """Whether machines had the time to join or to come back, since a model got this share."""
        share, since = self._since.get(name, (0.0, 0.0))
        if share != num_gpus:
            since = time.monotonic()
            self._since[name] = (num_gpus, since)
        return time.monotonic() - since >= JOINING

    def _on_gpus(self, name: str) -> bool:
        return name in self._placed and self._placed[name].num_gpus > 0

    def _devices(self) -> tuple[list[int], int]:
        """GPUs of each machine, and cores in all: of this machine, or of the cluster."""
        if self._settings.ray_address is None:
            return [len(gpu.visible())], gpu.cores()
        import ray

        cluster: Any = ray
        resources: list[Mapping[str, float]] = [
            node["Resources"] for node in cluster.nodes() if node["Alive"]
        ]
        gpus = sorted((int(each.get("GPU", 0)) for each in resources), reverse=True)
        return gpus, int(sum(each.get("CPU", 0) for each in resources))

    def _start(self, placements: Mapping[str, Placement]) -> None:
        from ray import serve

        serve.run_many(
            [
                self._target(entry, placements[entry.name])
                for entry in self._entries
                if entry.name in placements
            ],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )

    def _target(self, entry: ModelEntry, placement: Placement) -> Any:
        from ray import serve

        assert entry.config is not None, "entries without one are left out"
        made: Any = serve.deployment(
            Replica,
            name="replica",
            ray_actor_options={"num_cpus": REPLICA_CPUS, "num_gpus": placement.num_gpus},
            health_check_period_s=1,
            health_check_timeout_s=SILENCE,
            graceful_shutdown_timeout_s=drain.of_replicas([entry]),
            graceful_shutdown_wait_loop_s=0.1,
            max_constructor_retry_count=MOST_EARLY_DEATHS,
            **scaling.options(placement, entry.config.replicas),
        )
        # Else Serve makes one up each time, and restarts all replicas when only their number has
        # changed. There is no public way to say it (2.60, `api.py`).
        made._version = self._version
        bound = made.bind(entry.model, entry.version, self._settings, placement.device)
        return serve.RunTarget(bound, name=entry.name, route_prefix=None)
