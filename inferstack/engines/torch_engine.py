"""Exported PyTorch programs: `model.pt2` (torch.export) or `model.pt` (TorchScript)."""

import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from inferstack.batching import CostFit
from inferstack.config import Settings
from inferstack.engines.base import Prepared
from inferstack.engines.devices import prepare_device
from inferstack.engines.model_config import TensorConfig
from inferstack.engines.pt2_archive import refuse_code
from inferstack.engines.repository import ModelEntry
from inferstack.errors import (
    EngineError,
    InferstackError,
    InvalidInputError,
    ModelLoadError,
    OutputMismatchError,
)
from inferstack.wording import summary

Arrays = tuple[np.ndarray[Any, Any], ...]


class TorchEngine:
    """Runs a program whose inputs and outputs `config.yaml` declares.

    The input of a task is `{"<name>": nested lists}` without a batch dimension; its output has
    the same form. The program takes the declared inputs in order, each with a leading batch
    dimension, and returns a tensor, a tuple of tensors or a dict of tensors.
    """

    prepares_quickly = False
    prepares_by_model = False

    def __init__(self, entry: ModelEntry, settings: Settings, device: str | None) -> None:
        """Loads the program.

        Args:
            entry: the model's folder.
            settings: BATCH_SIZE, where the folder says nothing.
            device: where to compute; what the configuration says if None.

        Raises:
            ModelLoadError: there is no program, or it holds pickled objects.
            Exception: whatever torch raises.
        """
        config = entry.ready_config
        self._target = prepare_device(config, device)
        self.device = str(self._target)
        self._inputs, self._outputs = config.inputs, config.outputs
        self._takes_many = entry.batch_size(settings) > 1
        self._program = load_program(entry.source, self._target)

    def prepare(self, inputs: list[Any]) -> list[Prepared | InferstackError]:
        """Converts nested lists to arrays of the declared types and shapes; cost is elements."""
        return [self._prepare(data) for data in inputs]

    def _prepare(self, data: Any) -> Prepared | InferstackError:
        try:
            arrays = tuple(_array(declared, data) for declared in self._inputs)
        except InvalidInputError as error:
            return error
        return Prepared(arrays, float(sum(array.size for array in arrays)))

    def predict(self, values: list[Arrays]) -> list[Any]:
        """Computes prepared inputs, those of one shape together."""
        by_shape: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
        for index, arrays in enumerate(values):
            by_shape[tuple(array.shape for array in arrays)].append(index)
        outputs: list[Any] = [None] * len(values)
        for indices in by_shape.values():
            for index, output in zip(indices, self._run([values[i] for i in indices]), strict=True):
                outputs[index] = output
        return outputs

    def _run(self, values: list[Arrays]) -> list[dict[str, Any]]:
        with torch.inference_mode():
            stacked = [
                torch.from_numpy(np.stack(column)).to(self._target)
                for column in zip(*values, strict=True)
            ]
            named = self._named(self._program(*stacked))
        arrays = {name: tensor.contiguous().cpu().numpy() for name, tensor in named.items()}
        for name, array in arrays.items():
            if array.ndim == 0 or len(array) != len(values):
                raise OutputMismatchError(
                    f"output '{name}' has shape {array.shape} for a batch of {len(values)}"
                )
        return [{name: array[i] for name, array in arrays.items()} for i in range(len(values))]

    def _named(self, result: Any) -> dict[str, torch.Tensor]:
        names = [declared.name for declared in self._outputs]
        if isinstance(result, dict):
            missing = [name for name in names if name not in result]
            if missing:
                raise EngineError(f"the program returned no '{missing[0]}'")
            return {name: result[name] for name in names}
        tensors = result if isinstance(result, tuple | list) else (result,)
        if len(tensors) != len(names):
            raise EngineError(
                f"the program returned {len(tensors)} tensors; {len(names)} are declared"
            )
        return dict(zip(names, tensors, strict=True))

    def warm_up(self, fit: CostFit) -> None:
        """Computes ones, alone and where batches are larger two together; open dimensions are 1.

        Raises:
            ModelLoadError: the program computes one input, but not two.
        """
        one = tuple(
            np.ones([max(size, 1) for size in declared.shape], dtype=declared.dtype)
            for declared in self._inputs
        )
        self.predict([one])
        if self._takes_many:
            try:
                self.predict([one, one])
            except Exception as error:
                raise ModelLoadError(
                    "the program takes one input only: export it with a dynamic batch dimension, "
                    f"or set batch.max_size: 1 ({summary(error)})"
                ) from error

    def close(self) -> None:
        """Frees the program."""
        del self._program
        if self._target.type == "cuda":
            torch.cuda.empty_cache()


def load_program(folder: Path, device: torch.device) -> Callable[..., Any]:
    """Loads the program of a model's folder, wherever it was exported.

    Args:
        folder: holds `model.pt2` or `model.pt`.
        device: where it will compute, with its index.

    Raises:
        ModelLoadError: there is no program, or it holds pickled objects.
        Exception: whatever torch raises.
    """
    exported, script = folder / "model.pt2", folder / "model.pt"
    if exported.is_file():
        refuse_code(exported)
        # `Module.to` would leave the device of the export in constants and in the graph.
        return move_to_device_pass(torch.export.load(exported), str(device)).module()
    if script.is_file():
        load: Any = torch.jit.load
        with warnings.catch_warnings():
            # TorchScript is deprecated, and still what many folders hold.
            warnings.simplefilter("ignore", DeprecationWarning)
            return load(script, map_location=device).eval()  # type: ignore[no-any-return]
    raise ModelLoadError(f"{folder}: there is neither model.pt2 nor model.pt")


def _array(declared: TensorConfig, data: Any) -> np.ndarray[Any, Any]:
    field = f"data.{declared.name}"
    if not isinstance(data, dict) or declared.name not in data:
        raise _invalid(field, "is missing")
    try:
        array = np.asarray(data[declared.name])
        if array.dtype == object or array.dtype.kind not in "biuf":
            raise ValueError("not numbers")
        wanted = np.dtype(declared.dtype)
        if array.dtype.kind in "iu" and wanted.kind in "iu":
            _check_range(array, wanted)
        elif not np.can_cast(array.dtype, wanted, casting="same_kind"):
            raise ValueError(f"{array.dtype} is not {declared.dtype}")
        array = array.astype(declared.dtype)
    except (ValueError, OverflowError) as error:
        raise _invalid(field, f"must be nested lists of {declared.dtype}: {error}") from None
    shape = declared.shape
    if array.ndim != len(shape) or any(
        size not in (-1, have) for size, have in zip(shape, array.shape, strict=True)
    ):
        raise _invalid(field, f"has shape {list(array.shape)}; the model takes {list(shape)}")
    return array


def _check_range(array: np.ndarray[Any, Any], wanted: np.dtype[Any]) -> None:
    """Refuses what a smaller type would wrap around to another number."""
    least, most = np.iinfo(wanted).min, np.iinfo(wanted).max
    if array.size and not least <= int(array.min()) <= int(array.max()) <= most:
        raise ValueError(f"one is outside of {least} to {most}")


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{field} {message}", errors=[{"field": field, "message": message}])
