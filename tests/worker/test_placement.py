"""How many replicas, on what."""

from pathlib import Path
from typing import Any

import pytest

from inferstack.config import load
from inferstack.engines.model_config import ModelConfig
from inferstack.engines.repository import ModelEntry
from inferstack.worker.placement import Placement, default_first, place
from inferstack.worker.pool import plans


def config(engine: str = "python", **options: Any) -> ModelConfig:
    if engine == "transformers":
        options.setdefault("task", "sentence-embedding")
    return ModelConfig.model_validate({"engine": engine, **options})


@pytest.mark.parametrize(
    ("options", "gpus", "cores", "expected"),
    [
        ({"engine": "transformers"}, 0, 2, Placement(2, 2, 0.0, "cpu")),
        ({"engine": "transformers"}, 0, 64, Placement(8, 8, 0.0, "cpu")),
        ({"engine": "transformers", "threads": 4}, 0, 2, Placement(1, 1, 0.0, "cpu")),
        ({"engine": "transformers"}, 4, 64, Placement(4, 4, 1.0, "cuda")),
        ({"engine": "transformers", "num_gpus": 0.5}, 4, 8, Placement(8, 8, 0.5, "cuda")),
        ({"engine": "transformers", "num_gpus": 0}, 4, 2, Placement(2, 2, 0.0, "cpu")),
        ({"engine": "transformers", "device": "cpu"}, 4, 2, Placement(2, 2, 0.0, "cpu")),
        ({"engine": "transformers", "device": "cuda:1"}, 4, 2, Placement(2, 2, 0.0, "cuda:1")),
        ({"device": "cuda"}, 0, 2, Placement(1, 1, 1.0, "cuda")),
        ({}, 4, 2, Placement(2, 2, 0.0, "cpu")),
        ({"num_gpus": 2}, 4, 2, Placement(2, 2, 2.0, "cuda")),
        ({"replicas": 3}, 0, 2, Placement(3, 3, 0.0, "cpu")),
        ({"replicas": {"min": 1, "max": 5}}, 0, 2, Placement(1, 5, 0.0, "cpu")),
    ],
)
def test_placement(options: dict[str, Any], gpus: int, cores: int, expected: Placement) -> None:
    assert place(config(**options), gpus, cores) == expected


def test_plain_processes_share_out_the_gpus() -> None:
    entry = ModelEntry("m", 1, Path("m/1"), config("transformers", num_gpus=0.5))
    assert [plan.device for plan in plans([entry], 2, 8)] == [
        "cuda:0",
        "cuda:0",
        "cuda:1",
        "cuda:1",
    ]


def test_broken_folders_get_no_process() -> None:
    assert plans([ModelEntry("m", 1, Path("m/1"), error="broken")], 0, 2) == []


def test_the_default_model_comes_first_in_all_its_versions() -> None:
    entries = [ModelEntry(name, v, Path("x")) for name, v in (("a", 1), ("b", 1), ("b", 2))]
    first, rest = default_first(entries, load(default_model="b"))
    assert [entry.name for entry in first] == ["b:1", "b:2"]
    assert [entry.name for entry in rest] == ["a:1"]
