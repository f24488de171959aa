"""What an engine is, and how one is made."""

import importlib
from typing import Any, NamedTuple, Protocol

from inferstack.batching import CostFit
from inferstack.config import Settings
from inferstack.engines.repository import ModelEntry
from inferstack.errors import EngineError, InferstackError, ModelFolderError, ModelLoadError
from inferstack.wording import encodable

ENGINES = {
    "python": ("inferstack.engines.python_engine", "PythonEngine"),
    "transformers": ("inferstack.engines.transformers_engine", "TransformersEngine"),
    "torch": ("inferstack.engines.torch_engine", "TorchEngine"),
}
"""Modules are imported on demand: a replica of a python model never pays for torch."""


class DeviceLostError(EngineError):
    """The device no longer works in this process."""

    slug = "device-lost"


class Prepared(NamedTuple):
    """An input that is checked and converted, once, for both planning and predict."""

    value: Any
    cost: float


class Engine(Protocol):
    """A loaded model. `prepare` may run in one thread while `predict` runs in another."""

    device: str
    """Where it computes: `cpu` or `cuda:<n>`."""
    prepares_quickly: bool
    """Whether `prepare` takes microseconds and may run on the event loop."""
    prepares_by_model: bool
    """Whether `prepare` runs code of the model, which may do whatever `predict` may."""

    def prepare(self, inputs: list[Any]) -> list[Prepared | InferstackError]:
        """Checks and converts inputs; an error in place of each one that is not valid."""

    def predict(self, values: list[Any]) -> list[Any]:
        """Computes one batch of prepared values; one output for each, in order.

        An output is whatever orjson writes, numpy arrays included.

        Raises:
            DeviceLostError: the process cannot go on.
            Exception: whatever the model raises, for the batch as a whole.
        """

    def warm_up(self, fit: CostFit) -> None:
        """Computes a few batches, so that the first caller does not pay, and measures them."""

    def close(self) -> None:
        """Frees the device."""


def create(entry: ModelEntry, settings: Settings, device: str | None = None) -> Engine:
    """Loads a model.

    Args:
        entry: the model's folder.
        settings: the environment decides about test-only inputs.
        device: `cpu` or `cuda[:n]`; what the configuration says if None.

    Raises:
        ModelLoadError: the model's code or files raised; the message is one line.
        ModelFolderError: the folder is broken.
    """
    module, name = ENGINES[entry.ready_config.engine]
    try:
        engine: Engine = getattr(importlib.import_module(module), name)(entry, settings, device)
    except (ModelFolderError, ModelLoadError):
        raise
    except (Exception, SystemExit) as error:
        raise ModelLoadError(summary(error)) from error
    return engine


def summary(error: BaseException) -> str:
    """One line about an exception: its class and what it says, 500 characters at most."""
    text = " ".join(_said(error).split())
    name = type(error).__name__
    return encodable((f"{name}: {text}" if text else name)[:500])


def device_lost(error: BaseException) -> bool:
    """Whether an exception means that CUDA is unusable in this process from now on.

    Running out of memory is not: the next, smaller batch may fit.
    """
    if isinstance(error, DeviceLostError):
        return True
    if type(error).__name__ == "OutOfMemoryError":
        return False
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in _said(error)


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # in the __str__ of a model's own exception
        return "it cannot be shown"
