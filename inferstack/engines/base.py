"""What an engine is, and how one is made."""

import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from inferstack.batching import CostFit
from inferstack.config import Settings
from inferstack.engines.repository import ModelEntry
from inferstack.errors import EngineError, InferstackError, ModelFolderError, ModelLoadError
from inferstack.wording import said, summary

ENGINES = {
    "python": ("inferstack.engines.python_engine", "PythonEngine"),
    "transformers": ("inferstack.engines.transformers_engine", "TransformersEngine"),
    "torch": ("inferstack.engines.torch_engine", "TorchEngine"),
}
"""Modules are imported on demand: a replica of a python model never pays for torch."""

CUDA_ERRORS = (
    "AcceleratorError: ",  # torch
    "CUDA error",  # torch
    "CUDA driver error",  # torch
    "Triton Error [CUDA]",
    "CUDA failure",  # ONNX Runtime
    "cudaError",  # CuPy
    "CUDA_ERROR_",  # CuPy, Numba, JAX
)
"""What libraries say, or call their exception, when a call of CUDA fails: as a rule each later one
does too."""
OUT_OF_MEMORY = ("out of memory", "out_of_memory", "alloc_failed")
"""What they say when they find no memory; cuBLAS has the last one."""
ABOUT_DATA = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
"""Errors of Python that often quote what a caller sent; no library raises them for its device."""


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
    """Where it computes: `cpu`, or `cuda:<n>` of the GPUs that its process sees."""
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


def device_lost(error: BaseException) -> bool:
    """Whether an exception, or one that led to it, means that the device is lost to this process.

    Running out of memory is not: the next, smaller batch may fit.
    """
    chain = list(_chain(error))
    if any(isinstance(each, DeviceLostError) for each in chain):
        return True
    texts = [f"{type(each).__name__}: {said(each)}" for each in chain if not _about_data(each)]
    if any(phrase in text.lower() for text in texts for phrase in OUT_OF_MEMORY):
        return False
    return any(mark in text for text in texts for mark in CUDA_ERRORS)


def _about_data(error: BaseException) -> bool:
    """Whether it may quote an input: a caller who sends such words must not end the replica."""
    return isinstance(error, ABOUT_DATA) and type(error).__module__ == "builtins"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that led to it; a chain may lead back into itself."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__context__ if error.__cause__ is None else error.__cause__
