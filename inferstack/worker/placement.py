"""How many replicas a model gets, on what, and which come first. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from inferstack.config import Settings
from inferstack.engines.model_config import ModelConfig, ReplicaRange
from inferstack.engines.repository import ModelEntry

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
    """`cpu`, `cuda` or `cuda:<n>`."""

    def gpu_index(self, replica: int, gpus: int) -> int:
        """The first GPU of a replica where nobody else hands out GPUs."""
        return int(replica * self.num_gpus) % max(gpus, 1)


def place(config: ModelConfig, gpus: int, cores: int) -> Placement:
    """Decides from a model's configuration and the machine.

    Args:
        config: its `replicas`, `device`, `num_gpus` and `threads`.
        gpus: GPUs that there are.
        cores: CPU cores that there are.
    """
    device, num_gpus = _device(config, gpus)
    replicas = config.replicas
    if isinstance(replicas, ReplicaRange):
        return Placement(replicas.min, replicas.max, num_gpus, device)
    if replicas == "auto":
        replicas = _automatic(config, num_gpus, gpus, cores)
    return Placement(replicas, replicas, num_gpus, device)


def default_first(
    entries: Sequence[ModelEntry], settings: Settings
) -> tuple[list[ModelEntry], list[ModelEntry]]:
    """The versions of the default model, and the other models.

    The others start once it is ready or has failed: while all load at once, on few cores, each
    takes as long as all of them.
    """
    first = [entry for entry in entries if entry.model == settings.default_model]
    return first, [entry for entry in entries if entry.model != settings.default_model]


def _device(config: ModelConfig, gpus: int) -> tuple[str, float]:
    if config.device == "cpu" or config.num_gpus == 0:
        return "cpu", 0.0
    if config.device.startswith("cuda:"):
        # The operator chose the device: nobody is to hand out another one.
        return config.device, 0.0
    chooses = config.engine in DEVICE_CHOOSERS or config.num_gpus is not None
    if config.device == "cuda" or (gpus and chooses):
        return "cuda", config.num_gpus or 1.0
    return "cpu", 0.0


def _automatic(config: ModelConfig, num_gpus: float, gpus: int, cores: int) -> int:
    if num_gpus:
        return max(1, int(gpus / num_gpus))
    return max(1, min(MOST_ON_CPU, cores // config.threads))
