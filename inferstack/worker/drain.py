"""How long replicas take to drain, and so how long those wait who end them."""

from collections.abc import Iterable

from inferstack.config import Settings
from inferstack.engines.model_config import ModelConfig
from inferstack.engines.repository import ModelEntry, scan
from inferstack.errors import ModelFolderError

REST = 10.0
"""Seconds beyond the batch that computes: its results are stored, the other tasks given back."""
HANDOVER = 20.0
"""Seconds beyond that for Ray, which first starts replicas elsewhere, and then ends itself."""
USUAL: float = ModelConfig.model_fields["timeout"].default


def of_replicas(entries: Iterable[ModelEntry]) -> float:
    """Seconds within which the replicas of some models have drained."""
    timeouts = [entry.config.timeout for entry in entries if entry.config is not None]
    return max(timeouts, default=USUAL) + REST


def of_host(settings: Settings) -> float:
    """Seconds within which a program has ended that hosts replicas of any model of MODEL_PATH.

    No less than for a model with the usual `timeout`: perhaps the models come later.
    """
    try:
        entries = scan(settings.model_path, settings)
    except ModelFolderError:
        entries = []
    return max(of_replicas(entries), USUAL + REST) + HANDOVER
