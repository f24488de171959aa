"""How many replicas each model gets, on what, and which come first. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from inferstack.config import Settings
from inferstack.engines.model_config import ModelConfig, ReplicaRange
from inferstack.engines.repository import ModelEntry
from inferstack.worker.room import Room

MOST_ON_CPU = 8
"""Replicas that `auto` makes on CPUs at most: each holds a copy of the weights."""
DEVICE_CHOOSERS = frozenset({"transformers", "torch"})
"""Engines that use a GPU by themselves; a python model must say so with `num_gpus`."""


class Placement(NamedTuple):
    """The replicas of one deployment."""

    minimum: int
    maximum: int
    num_gpus: float
    """GPUs of one replica."""
    device: str
    """`cpu`; or `cuda:<n>`, of the GPUs that a replica sees."""
    gpus: tuple[tuple[int, ...], ...] = ()
    """The GPUs of each replica that has room, counted over all machines."""
    shortage: str | None = None
    """Why some replicas have no room."""

    @property
    def stranded(self) -> bool:
        """Whether not one replica has room."""
        return self.shortage is not None and not self.gpus


def place(
    entries: Sequence[ModelEntry],
    machines: Sequence[int],
    cores: int,
    *,
    scaling: bool = True,
    growing: bool = False,
) -> dict[str, Placement]:
    """Decides for all models together, since they share the machines.

    First each model gets room for its least, then those with a range of replicas for their most.
    Models with `auto` divide up the rest, replica by replica. Those of them that say no `num_gpus`
    get a whole GPU for each replica, or equal parts if there are more such models than GPUs left.

    Args:
        entries: the models, by rank; those whose folder is wrong are left out.
        machines: GPUs of each machine.
        cores: CPU cores of all machines.
        scaling: whether models with a range ever get more than their least.
        growing: whether machines are added for replicas without room. Else there are none of those:
            Ray, which knows nothing of this plan, would give them the GPUs that another model is
            about to use again.

    Returns:
        For each name of a deployment where it belongs.
    """
    configs = {entry.name: entry.config for entry in entries if entry.config is not None}
    devices = {name: _device(config, sum(machines)) for name, config in configs.items()}
    claims = {name: _Claim(configs[name]) for name, device in devices.items() if device == "cuda"}
    _share_out(list(claims.values()), Room(machines), scaling)
    return {
        name: claims[name].placement(growing)
        if name in claims
        else _without_claim(config, devices[name], cores)
        for name, config in configs.items()
    }


def default_first(
    entries: Sequence[ModelEntry], settings: Settings
) -> tuple[list[ModelEntry], list[ModelEntry]]:
    """The versions of the default model, and the other models.

    The others start once it is ready or has failed: while all load at once, on few cores, each
    takes as long as all of them.
    """
    first = [entry for entry in entries if entry.model == settings.default_model]
    return first, [entry for entry in entries if entry.model != settings.default_model]


class _Claim:
    """A model that wants GPUs, and what it gets of them."""

    def __init__(self, config: ModelConfig) -> None:
        replicas = config.replicas
        self.automatic = replicas == "auto"
        self.shares = self.automatic and config.num_gpus is None
        self.num_gpus = config.num_gpus or 1.0
        self.minimum = self.maximum = replicas if isinstance(replicas, int) else 1
        if isinstance(replicas, ReplicaRange):
            self.minimum, self.maximum = replicas.min, replicas.max
        self._gpus: list[tuple[int, ...]] = []
        self._shortage: str | None = None

    def take(self, room: Room, replicas: int) -> None:
        """Takes room for so many, if there is."""
        while len(self._gpus) < replicas and self.grow(room):
            pass
        if len(self._gpus) < self.minimum:
            self._shortage = (
                f"each replica needs {self.num_gpus:g} GPUs of one machine, "
                f"{room.left(self.num_gpus):g} are left: set num_gpus or replicas of the models"
            )

    def grow(self, room: Room) -> bool:
        """Takes room for one more."""
        gpus = room.take(self.num_gpus)
        if gpus is not None:
            self._gpus.append(gpus)
        return gpus is not None

    def placement(self, growing: bool) -> Placement:
        """What it got; its numbers stand, also without room, where machines are added for them."""
        room = max(1, len(self._gpus))
        if self.automatic:
            self.minimum = self.maximum = room
        elif not growing:
            self.minimum, self.maximum = min(self.minimum, room), min(self.maximum, room)
        gpus = tuple(self._gpus)
        return Placement(self.minimum, self.maximum, self.num_gpus, "cuda:0", gpus, self._shortage)


def _share_out(claims: Sequence[_Claim], room: Room, scaling: bool) -> None:
    sharing = [claim for claim in claims if claim.shares]
    for claim in claims:
        if not claim.shares:
            claim.take(room, claim.minimum)
    share = room.shared_by(len(sharing))
    for claim in sharing:
        claim.num_gpus = share
        claim.take(room, claim.minimum)
    for claim in claims if scaling else ():
        claim.take(room, claim.maximum)
    growing = [claim for claim in claims if claim.automatic]
    while growing:
        growing = [claim for claim in growing if claim.grow(room)]


def _device(config: ModelConfig, gpus: int) -> str:
    if config.device == "cpu" or config.num_gpus == 0:
        return "cpu"
    if config.device.startswith("cuda"):
        return config.device
    chooses = config.engine in DEVICE_CHOOSERS or config.num_gpus is not None
    return "cuda" if gpus and chooses else "cpu"


def _without_claim(config: ModelConfig, device: str, cores: int) -> Placement:
    """On CPUs, or on a device that the operator chose: nobody is to hand out another one."""
    replicas = config.replicas
    if isinstance(replicas, ReplicaRange):
        return Placement(replicas.min, replicas.max, 0.0, device)
    if replicas == "auto":
        most = MOST_ON_CPU if device == "cpu" else 1
        replicas = max(1, min(most, cores // config.threads))
    return Placement(replicas, replicas, 0.0, device)
