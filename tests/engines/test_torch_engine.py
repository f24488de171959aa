"""Exported programs: shapes, types, and archives that would run code."""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inferstack.batching import CostFit
from inferstack.config import load
from inferstack.engines.base import Engine, Prepared, create
from inferstack.engines.repository import find, scan
from inferstack.engines.torch_engine import load_program
from inferstack.errors import InvalidInputError, ModelLoadError, OutputMismatchError

CONFIG = """
engine: torch
inputs: [{name: x, dtype: float32, shape: [3]}, {name: k, dtype: int64, shape: []}]
outputs: [{name: y}, {name: total}]
"""


class Scale(torch.nn.Module):
    """y = x * k, and its sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x * self.weight * k.unsqueeze(-1)
        return y, y.sum(-1)


def folder(root: Path, config: str = CONFIG) -> Path:
    path = root / "scale" / "1"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(config)
    return path


def export(path: Path) -> Path:
    example = (torch.ones(2, 3), torch.ones(2, dtype=torch.int64))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Scale(), example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, path / "model.pt2")
    return path / "model.pt2"


def script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Scale()).save(str(path / "model.pt"))  # type: ignore[no-untyped-call]


def engine_of(root: Path) -> Engine:
    return create(find(scan(root, load()), "scale", 1), load(), "cpu")


@pytest.mark.parametrize("make", [export, script])
def test_programs_compute_batches_of_declared_inputs(tmp_path: Path, make: Any) -> None:
    make(folder(tmp_path))
    engine = engine_of(tmp_path)
    engine.warm_up(CostFit())
    prepared = engine.prepare([{"x": [1, 2, 3], "k": 2}, {"x": [0.5, 0, 0], "k": -1}])
    outputs = engine.predict([item.value for item in prepared if isinstance(item, Prepared)])
    assert [output["y"].tolist() for output in outputs] == [[2, 4, 6], [-0.5, 0, 0]]
    assert [float(output["total"]) for output in outputs] == [12, -0.5]
    engine.close()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": [1, 2, 3]}, "data.k is missing"),
        ({"x": [1, 2], "k": 1}, r"data.x has shape \[2\]; the model takes \[3\]"),
        ({"x": [[1, 2, 3]], "k": 1}, r"data.x has shape \[1, 3\]"),
        ({"x": [1, [2], 3], "k": 1}, "data.x must be nested lists of float32"),
        ({"x": ["a", "b", "c"], "k": 1}, "data.x must be nested lists"),
        ({"x": [1, 2, 3], "k": 1.5}, "data.k must be nested lists of int64"),
        ([1, 2], "data.x is missing"),
    ],
)
def test_inputs_that_do_not_fit_the_declaration_are_named(
    tmp_path: Path, data: Any, message: str
) -> None:
    export(folder(tmp_path))
    (refused,) = engine_of(tmp_path).prepare([data])
    assert isinstance(refused, InvalidInputError)
    with pytest.raises(InvalidInputError, match=message):
        raise refused


@pytest.mark.parametrize(
    ("dtype", "fits", "outside"),
    [
        ("int64", [-(2**63), 2**63 - 1], [2**63, 2**63]),
        ("int32", [-(2**31), 2**31 - 1], [0, 2**31]),
        ("int8", [-128, 127], [0, -129]),
        ("uint8", [0, 255], [0, -1]),
    ],
)
def test_a_number_that_the_declared_type_cannot_hold_is_refused(
    tmp_path: Path, dtype: str, fits: list[int], outside: list[int]
) -> None:
    config = f"engine: torch\ninputs: [{{name: x, dtype: {dtype}, shape: [2]}}]\n"
    path = folder(tmp_path, config + "outputs: [{name: y}]\n")
    example = (torch.ones(2, 2, dtype=getattr(torch, dtype)),)
    torch.export.save(torch.export.export(torch.nn.Identity(), example), path / "model.pt2")
    taken, refused = engine_of(tmp_path).prepare([{"x": fits}, {"x": outside}])
    assert isinstance(taken, Prepared)
    assert taken.value[0].tolist() == fits
    assert isinstance(refused, InvalidInputError)
    assert f"nested lists of {dtype}: one is outside of {fits[0]} to {fits[1]}" in refused.detail


def test_inputs_of_different_shapes_are_computed_apart(tmp_path: Path) -> None:
    config = "engine: torch\ninputs: [{name: x, shape: [-1]}]\noutputs: [{name: y}]\n"

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x.sum(-1)}

    path = folder(tmp_path, config)
    dims = {"x": {0: torch.export.Dim("b", min=1, max=64), 1: torch.export.Dim("n", min=1, max=64)}}
    program = torch.export.export(Sum(), (torch.ones(2, 4),), dynamic_shapes=dims)
    torch.export.save(program, path / "model.pt2")
    engine = engine_of(tmp_path)
    prepared = engine.prepare([{"x": [1.0] * n} for n in (3, 5, 3, 7)])
    outputs = engine.predict([item.value for item in prepared if isinstance(item, Prepared)])
    assert [float(output["y"]) for output in outputs] == [3, 5, 3, 7]


def test_an_output_without_a_batch_dimension_fails_loudly(tmp_path: Path) -> None:
    config = "engine: torch\ninputs: [{name: x, shape: [3]}]\noutputs: [{name: y}]\n"

    class Collapse(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum()

    path = folder(tmp_path, config)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Collapse(), (torch.ones(2, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path / "model.pt2")
    with pytest.raises(OutputMismatchError):
        engine_of(tmp_path).predict([(np.ones(3, dtype=np.float32),)])


def test_a_program_exported_on_one_device_computes_on_another(tmp_path: Path) -> None:
    class Anchored(torch.nn.Module):
        """Holds on to the device of its export in every way that a graph knows."""

        def __init__(self) -> None:
            super().__init__()
            self.constant = torch.tensor([1.0, 2.0, 3.0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            steps = torch.arange(3, device=x.device)
            return (x * self.constant + steps).to(torch.float64).to(x.device) + torch.zeros(3)

    program = torch.export.export(Anchored(), (torch.ones(2, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    # No other device is on every machine; it computes nothing, but checks devices as a GPU does.
    there = torch.device("meta")
    assert load_program(tmp_path, there)(torch.ones(2, 3, device=there)).device == there


@pytest.mark.parametrize("size", [1, 2])
def test_a_program_exported_for_one_input_loads_only_if_batches_are_of_one(
    tmp_path: Path, size: int
) -> None:
    path = folder(tmp_path, f"{CONFIG}batch: {{max_size: {size}}}\n")
    example = (torch.ones(1, 3), torch.ones(1, dtype=torch.int64))
    torch.export.save(torch.export.export(Scale(), example), path / "model.pt2")
    engine = engine_of(tmp_path)
    if size == 1:
        engine.warm_up(CostFit())
        return
    with pytest.raises(ModelLoadError, match=r"one input only: .*, or set batch\.max_size: 1 \("):
        engine.warm_up(CostFit())


def test_a_folder_without_a_program_says_so(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(ModelLoadError, match=r"neither model\.pt2 nor model\.pt"):
        engine_of(tmp_path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_an_archive_with_pickled_objects_is_refused_before_they_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    archive = export(folder(tmp_path))
    buffer = io.BytesIO()
    torch.save(Trap(sprung), buffer)
    trapped = tmp_path / "trapped.pt2"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(trapped, "w") as target:
        for name in source.namelist():
            is_sample = name.endswith(".pt") and "sample_inputs" in name
            target.writestr(name, buffer.getvalue() if is_sample else source.read(name))
    trapped.replace(archive)
    with pytest.raises(ModelLoadError, match="pickled"):
        engine_of(tmp_path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x/data/constants/opaque_obj_0", pickle.dumps(1)),
        ("x/data/weights/m_weights_config.json", b'{"config":{"w":{"use_pickle":true}}}'),
    ],
)
def test_objects_and_pickled_payloads_are_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with zipfile.ZipFile(export(folder(tmp_path)), "a") as archive:
        archive.writestr(name, content)
    with pytest.raises(ModelLoadError, match="pickled"):
        engine_of(tmp_path)


def test_an_archive_with_a_compiled_library_is_refused(tmp_path: Path) -> None:
    """The library would do anything as soon as it is loaded; this one is no library at all."""
    with zipfile.ZipFile(export(folder(tmp_path)), "a") as archive:
        (root, *_) = archive.namelist()[0].split("/")
        archive.writestr(f"{root}/data/aotinductor/model/a.wrapper.so", b"\x7fELF")
    with pytest.raises(
        ModelLoadError, match=r"a\.wrapper\.so is compiled code .* torch\.export\.save"
    ):
        engine_of(tmp_path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (folder(tmp_path) / "model.pt2").write_bytes(b"nothing")
    with pytest.raises(ModelLoadError, match="zip"):
        engine_of(tmp_path)
