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


def entries(*configs: ModelConfig) -> list[ModelEntry]:
    """Models `a:1`, `b:1` and so on."""
    return [
        ModelEntry(name, 1, Path(name), each) for name, each in zip("abcd", configs, strict=False)
    ]


def counts(placements: dict[str, Placement]) -> list[tuple[int, float]]:
    """Replicas, and the GPUs of each."""
    return [(placement.minimum, placement.num_gpus) for placement in placements.values()]


TEXT = config("transformers")


@pytest.mark.parametrize(
    ("options", "gpus", "cores", "expected"),
    [
        ({"engine": "transformers"}, 0, 2, (2, 2, 0.0, "cpu")),
        ({"engine": "transformers"}, 0, 64, (8, 8, 0.0, "cpu")),
        ({"engine": "transformers", "threads": 4}, 0, 2, (1, 1, 0.0, "cpu")),
        ({"engine": "transformers"}, 4, 64, (4, 4, 1.0, "cuda:0")),
        ({"engine": "transformers", "num_gpus": 0.5}, 4, 8, (8, 8, 0.5, "cuda:0")),
        ({"engine": "transformers", "num_gpus": 0.4}, 2, 8, (4, 4, 0.4, "cuda:0")),
        ({"engine": "transformers", "num_gpus": 0}, 4, 2, (2, 2, 0.0, "cpu")),
        ({"engine": "transformers", "device": "cpu"}, 4, 2, (2, 2, 0.0, "cpu")),
        ({"engine": "transformers", "device": "cuda:1"}, 4, 64, (1, 1, 0.0, "cuda:1")),
        ({"device": "cuda:1", "replicas": 3}, 4, 2, (3, 3, 0.0, "cuda:1")),
        ({"device": "cuda"}, 0, 2, (1, 1, 1.0, "cuda:0")),
        ({}, 4, 2, (2, 2, 0.0, "cpu")),
        ({"num_gpus": 2}, 4, 2, (2, 2, 2.0, "cuda:0")),
        ({"replicas": 3}, 0, 2, (3, 3, 0.0, "cpu")),
        ({"replicas": {"min": 1, "max": 5}}, 0, 2, (1, 5, 0.0, "cpu")),
        ({"num_gpus": 1, "replicas": {"min": 1, "max": 5}}, 2, 2, (1, 2, 1.0, "cuda:0")),
        ({"num_gpus": 1, "replicas": 3}, 2, 2, (2, 2, 1.0, "cuda:0")),
    ],
)
def test_placement_of_one_model(
    options: dict[str, Any], gpus: int, cores: int, expected: tuple[int, int, float, str]
) -> None:
    assert place(entries(config(**options)), [gpus], cores)["a:1"][:4] == expected


@pytest.mark.parametrize(
    ("models", "machines", "expected"),
    [
        (2, [4], [(2, 1.0), (2, 1.0)]),
        (2, [1, 1, 1], [(2, 1.0), (1, 1.0)]),
        (2, [1], [(1, 0.5), (1, 0.5)]),
        (3, [1], [(1, 0.3333)] * 3),
        (3, [2], [(2, 0.5), (1, 0.5), (1, 0.5)]),
        (2, [0], [(2, 0.0), (2, 0.0)]),
    ],
)
def test_models_with_auto_divide_up_the_gpus_and_share_them_if_they_are_few(
    models: int, machines: list[int], expected: list[tuple[int, float]]
) -> None:
    placements = place(entries(*[TEXT] * models), machines, 2)
    assert counts(placements) == expected
    assert not [name for name, placement in placements.items() if placement.shortage]


def test_auto_gets_what_the_numbers_of_other_models_leave() -> None:
    one = config("transformers", replicas=1)
    assert counts(place(entries(TEXT, one), [3], 2)) == [(2, 1.0), (1, 1.0)]
    part = config(num_gpus=0.25, replicas=1)
    assert counts(place(entries(TEXT, part), [1], 2)) == [(1, 0.5), (1, 0.25)]


def test_a_range_keeps_room_to_grow_where_replicas_come_and_go() -> None:
    models = entries(TEXT, config("transformers", replicas={"min": 1, "max": 3}))
    assert [p[:2] for p in place(models, [4], 2).values()] == [(1, 1), (1, 3)]
    assert [p[:2] for p in place(models, [4], 2, scaling=False).values()] == [(3, 3), (1, 1)]


def test_only_where_machines_are_added_for_them_replicas_without_room_wait_for_one() -> None:
    models = entries(
        config("transformers", replicas=3), config("transformers", replicas={"min": 1, "max": 5})
    )
    assert [p[:2] for p in place(models, [2, 2], 2).values()] == [(3, 3), (1, 1)]
    assert [p[:2] for p in place(models, [1], 2).values()] == [(1, 1), (1, 1)]
    assert [p[:2] for p in place(models, [1], 2, growing=True).values()] == [(3, 3), (1, 5)]


@pytest.mark.parametrize(
    ("models", "machines", "short", "stranded", "says"),
    [
        (
            [config("transformers", replicas=1), TEXT],
            [1],
            ["b:1"],
            ["b:1"],
            "1 GPUs of one machine, 0",
        ),
        ([config(num_gpus=2)], [1, 1], ["a:1"], ["a:1"], "2 GPUs of one machine, 1 are left"),
        ([config(num_gpus=0.5), config(num_gpus=1)], [1], ["b:1"], ["b:1"], "needs 1 GPUs"),
        ([config(num_gpus=1, replicas=3)], [2], ["a:1"], [], "1 GPUs of one machine, 0 are left"),
        ([config(device="cuda")], [0], ["a:1"], ["a:1"], "1 GPUs of one machine, 0 are left"),
    ],
)
def test_a_model_without_room_says_what_it_needs(
    models: list[ModelConfig], machines: list[int], short: list[str], stranded: list[str], says: str
) -> None:
    placements = place(entries(*models), machines, 2)
    found = {name: each.shortage for name, each in placements.items() if each.shortage}
    assert list(found) == short
    assert [name for name, each in placements.items() if each.stranded] == stranded
    assert says in found[short[0]]


def test_plain_processes_see_the_gpus_that_ray_would_give_them() -> None:
    half, two = config("transformers", num_gpus=0.5, replicas=3), config(num_gpus=2, replicas=1)
    models, gpus = entries(half, two, TEXT, config()), ["4", "1", "3", "0", "7"]
    found = plans(models, place(models, [len(gpus)], 1), gpus)
    assert [(p.entry.name, p.device, p.environment["CUDA_VISIBLE_DEVICES"]) for p in found] == [
        ("a:1", "cuda:0", "4"),
        ("a:1", "cuda:0", "4"),
        ("a:1", "cuda:0", "1"),
        ("b:1", "cuda:0", "3,0"),
        ("c:1", "cuda:0", "7"),
        ("d:1", "cpu", "4,1,3,0,7"),
    ]


def test_broken_folders_get_no_process() -> None:
    broken = [ModelEntry("m", 1, Path("m/1"), error="broken")]
    assert plans(broken, place(broken, [0], 2), []) == []


def test_the_default_model_comes_first_in_all_its_versions() -> None:
    entries = [ModelEntry(name, v, Path("x")) for name, v in (("a", 1), ("b", 1), ("b", 2))]
    first, rest = default_first(entries, load(default_model="b"))
    assert [entry.name for entry in first] == ["b:1", "b:2"]
    assert [entry.name for entry in rest] == ["a:1"]
