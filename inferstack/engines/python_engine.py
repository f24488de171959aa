"""Models written in Python: a folder with `model.py`."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from inferstack.batching import CostFit
from inferstack.config import Settings
from inferstack.engines.base import Prepared
from inferstack.engines.repository import ModelEntry
from inferstack.errors import (
    EngineError,
    InferstackError,
    InvalidInputError,
    ModelLoadError,
    OutputMismatchError,
)
from inferstack.wording import summary

MOST_COST = 1e12
"""What one input may cost: numbers far from all others leave nothing to plan batches with."""


class PythonEngine:
    """Runs the class `Model` of `model.py`.

    The class has `load(self, path, device)` and `predict(self, inputs) -> outputs`, and may have
    `cost(self, input) -> float` (size for batching), `warm_up(self)` and `close(self)`.
    """

    def __init__(self, entry: ModelEntry, settings: Settings, device: str | None) -> None:
        """Imports the module and loads the model.

        Args:
            entry: the model's folder.
            settings: test-only fields are refused when ENVIRONMENT is production.
            device: where the model computes; `auto` leaves the choice to the model.

        Raises:
            ModelLoadError: `model.py` has no usable class.
            Exception: whatever the model's own code raises.
        """
        config = entry.ready_config
        self.device = device or config.device
        model = _model_class(_import(entry))()
        load = getattr(model, "load", None)
        if load is not None:
            load(entry.source, self.device)
        self._model = model
        self._predict: Callable[[list[Any]], Any] = model.predict
        self._cost: Callable[[Any], float] | None = getattr(model, "cost", None)
        self._refused = config.test_only if settings.environment == "production" else ()
        self.prepares_quickly = self._cost is None
        self.prepares_by_model = self._cost is not None

    def prepare(self, inputs: list[Any]) -> list[Prepared | InferstackError]:
        """See `Engine`; the model's own `cost` gives the cost, 1 without it."""
        if self._cost is None and not self._refused:
            return [Prepared(data, 1.0) for data in inputs]
        return [self._prepare(data) for data in inputs]

    def _prepare(self, data: Any) -> Prepared | InferstackError:
        for field in self._refused:
            if isinstance(data, dict) and field in data:
                return InvalidInputError(f"data.{field} is for tests; refused in production")
        try:
            cost = _number(self._cost(_copy(data))) if self._cost is not None else 1.0
        except InferstackError as error:
            return error
        # SystemExit and the like in a model's code must not end the thread either.
        except BaseException as error:
            return EngineError(f"cost: {summary(error)}")
        return Prepared(data, cost)

    def predict(self, values: list[Any]) -> list[Any]:
        """The outputs of the model's own `predict`: a list, a tuple or a numpy array.

        Raises:
            OutputMismatchError: it returned something else.
        """
        outputs: Any = self._predict([_copy(data) for data in values])
        if isinstance(outputs, list | tuple) or hasattr(outputs, "__array__"):
            return cast("list[Any]", outputs)
        raise OutputMismatchError(f"predict returned {type(outputs).__name__}; it takes a list")

    def warm_up(self, fit: CostFit) -> None:
        """Lets the model warm itself up, if it knows how."""
        warm_up = getattr(self._model, "warm_up", None)
        if warm_up is not None:
            warm_up()

    def close(self) -> None:
        """Lets the model clean up, if it wants to."""
        close = getattr(self._model, "close", None)
        if close is not None:
            close()


def _copy(data: Any) -> Any:
    """What a model may change: its input comes again, whole, if the batch is halved."""
    return data.copy() if type(data) is dict else data


def _number(cost: Any) -> float:
    """What a model's `cost` returned, if batches can be planned with it."""
    if isinstance(cost, str | bytes) or not 0.0 <= (number := float(cost)) <= MOST_COST:
        raise EngineError(f"cost returned {cost!r:.100}; it takes a number from 0 to {MOST_COST:g}")
    return number


def _import(entry: ModelEntry) -> ModuleType:
    path: Path = entry.source / "model.py"
    name = f"inferstack_model_{entry.model}_{entry.version}".replace("-", "_").replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ModelLoadError("model.py is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _model_class(module: ModuleType) -> type[Any]:
    model = getattr(module, "Model", None)
    if not isinstance(model, type) or not callable(getattr(model, "predict", None)):
        raise ModelLoadError("model.py needs a class Model with predict(inputs)")
    return model
