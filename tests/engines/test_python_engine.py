"""Models written in Python."""

from pathlib import Path
from typing import Any

import pytest

from inferstack.batching import CostFit
from inferstack.config import load
from inferstack.engines.base import DeviceLostError, Engine, Prepared, create, device_lost
from inferstack.engines.repository import find, scan
from inferstack.errors import EngineError, InvalidInputError, ModelLoadError, OutputMismatchError

MODELS = Path(__file__).parents[2] / "models"
COSTLY = """
from inferstack.errors import InvalidInputError
class Model:
    events = []
    def load(self, path, device):
        self.events.append((path.name, device))
    def cost(self, data):
        if "n" not in data:
            raise InvalidInputError("data.n is missing")
        return data["n"]
    def predict(self, inputs):
        return [data["n"] + 1 for data in inputs]
    def warm_up(self):
        self.events.append("warm")
    def close(self):
        self.events.append("closed")
"""


def make(root: Path, code: str | None) -> Engine:
    folder = root / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("engine: python\n")
    if code is not None:
        (folder / "model.py").write_text(code)
    return create(find(scan(root, load()), "m", 1), load(), "cpu")


def test_load_cost_predict_warm_up_and_close_are_called(tmp_path: Path) -> None:
    engine = make(tmp_path, COSTLY)
    good, bad = engine.prepare([{"n": 5}, {}])
    assert good == Prepared({"n": 5}, 5.0)
    assert isinstance(bad, InvalidInputError)
    assert engine.predict([good.value]) == [6]
    engine.warm_up(CostFit())
    engine.close()
    events = engine._model.events  # type: ignore[attr-defined]
    assert events == [("1", "cpu"), "warm", "closed"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "model.py is missing"),
        ("x = 1\n", "model.py needs a class Model with predict"),
        ("def broken(:\n", "SyntaxError: "),
        ("import no_such_module\n", "ModuleNotFoundError: "),
        ("raise SystemExit(1)\n", "SystemExit: 1"),
        ("class Model:\n  def __init__(self): 1/0\n  def predict(self, i): pass\n", "ZeroDivision"),
    ],
)
def test_a_model_that_does_not_load_says_why_in_one_line(
    tmp_path: Path, code: str | None, message: str
) -> None:
    with pytest.raises(ModelLoadError) as caught:
        make(tmp_path, code)
    assert message in caught.value.detail
    assert "\n" not in caught.value.detail


def test_a_model_may_take_its_inputs_apart_and_gets_them_whole_the_next_time(
    tmp_path: Path,
) -> None:
    code = """
class Model:
    def cost(self, data):
        return len(data.pop("text"))
    def predict(self, inputs):
        return [data.pop("text") for data in inputs]
"""
    engine = make(tmp_path, code)
    inputs = [{"text": "a"}, {"text": "bc"}]
    values = [made.value for made in engine.prepare(inputs) if isinstance(made, Prepared)]
    assert engine.predict(values) == engine.predict(values) == ["a", "bc"]


def echo(**overrides: Any) -> Engine:
    settings = load(**overrides)
    return create(find(scan(MODELS, settings), "echo", 1), settings, "cpu")


def test_echo_returns_its_inputs() -> None:
    engine = echo()
    inputs = [{"a": 1}, {"b": [2]}]
    values = [p.value for p in engine.prepare(inputs) if isinstance(p, Prepared)]
    assert engine.predict(values) == inputs


def test_echo_fails_on_purpose() -> None:
    with pytest.raises(ValueError, match="because"):
        echo().predict([{"a": 1}, {"fail": "because"}])


def test_echo_refuses_to_crash_in_production() -> None:
    (refused,) = echo(environment="production").prepare([{"crash": True}])
    assert isinstance(refused, InvalidInputError)


class AcceleratorError(RuntimeError):
    """Named like the one of torch."""


OUT_OF_MEMORY = AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported")


def caused(text: str, cause: BaseException) -> BaseException:
    """What `raise RuntimeError(text) from cause` raises."""
    error = RuntimeError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        DeviceLostError(),
        AcceleratorError("device-side assert"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA driver error: unknown error"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0"),
        RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"),
        RuntimeError("[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS"),
        caused("inference failed", AcceleratorError("device-side assert")),
        caused("no memory, no device", caused("out of memory", DeviceLostError())),
    ],
    ids=str,
)
def test_errors_of_cuda_lose_the_device(error: BaseException) -> None:
    assert device_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        caused("inference failed", ValueError("no")),
        KeyError("CUDA error"),
        caused("inference failed", ValueError("invalid literal: 'cudaError'")),
        OUT_OF_MEMORY,
        caused("CUDA error in a batch of 64", OUT_OF_MEMORY),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
        RuntimeError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=str,
)
def test_running_out_of_memory_and_errors_of_a_model_do_not(error: BaseException) -> None:
    assert not device_lost(error)


class DriverError(ValueError):
    """What a library calls its own may be anything."""


def test_an_error_of_a_library_is_believed_whatever_it_derives_from() -> None:
    assert device_lost(DriverError("CUDA_ERROR_ILLEGAL_ADDRESS"))


def test_a_device_is_lost_also_if_the_model_fails_otherwise_while_it_handles_that() -> None:
    error = KeyError("retry")
    error.__context__ = AcceleratorError("device-side assert")
    assert device_lost(error)


def test_errors_that_cause_each_other_are_looked_at_once() -> None:
    first = ValueError("first")
    first.__cause__ = caused("second", first)
    assert not device_lost(first)


@pytest.mark.parametrize("returned", ['{"a": 1}', '"x"', 'b"x"', "None", "iter([1])"])
def test_predict_must_return_a_list(tmp_path: Path, returned: str) -> None:
    engine = make(
        tmp_path, f"class Model:\n    def predict(self, inputs):\n        return {returned}\n"
    )
    with pytest.raises(OutputMismatchError, match="it takes a list"):
        engine.predict([{}])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("float('nan')", "cost returned nan; it takes a number from 0 to 1e+12"),
        ("float('inf')", "cost returned inf; it takes a number from 0 to 1e+12"),
        ("1e200", "cost returned 1e+200; it takes a number from 0 to 1e+12"),
        ("-1", "cost returned -1; it takes a number from 0 to 1e+12"),
        ("'12'", "cost returned '12'; it takes a number from 0 to 1e+12"),
        ("None", "cost: TypeError: "),
        ("1 / 0", "cost: ZeroDivisionError: "),
        ("exit(3)", "cost: SystemExit: 3"),
    ],
)
def test_a_cost_that_is_none_fails_its_own_input_only(
    tmp_path: Path, returned: str, message: str
) -> None:
    code = f"""
class Model:
    def cost(self, data):
        return {returned} if data["bad"] else 2.5
    def predict(self, inputs):
        return inputs
"""
    bad, good = make(tmp_path, code).prepare([{"bad": True}, {"bad": False}])
    assert isinstance(bad, EngineError)
    assert bad.detail.startswith(message)
    assert good == Prepared({"bad": False}, 2.5)
