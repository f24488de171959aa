"""How embeddings are pooled, by what sentence-transformers writes into a model's folder."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from inferstack.engines.heads import EmbeddingHead
from inferstack.errors import ModelFolderError

HIDDEN = torch.tensor([[[1.0, 2.0], [3.0, 0.0], [9.0, 9.0]]])
MASK = torch.tensor([[1, 1, 0]])
POOLED = {"mean": [2.0, 1.0], "cls": [1.0, 2.0], "max": [3.0, 2.0]}


def folder(root: Path, config: Any) -> Path:
    """A model's folder with one Pooling module, of this configuration."""
    modules = [
        {
            "idx": 0,
            "path": "",
            "type": "sentence_transformers.base.modules.transformer.Transformer",
        },
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (root / "modules.json").write_text(json.dumps(modules))
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return root


@pytest.mark.parametrize(
    ("config", "way"),
    [
        ({"embedding_dimension": 2, "pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
    ],
)
def test_a_model_pools_as_its_folder_says(tmp_path: Path, config: Any, way: str) -> None:
    head = EmbeddingHead(folder(tmp_path, config))
    (vector,) = head.finish(SimpleNamespace(last_hidden_state=HIDDEN), MASK)
    assert vector.tolist() == POOLED[way]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode": "lasttoken"}, "['lasttoken']"),
        ({"pooling_mode": ["mean", "max"]}, "['mean', 'max']"),
        ({"pooling_mode": {}}, "none"),
        ({"pooling_mode": [["mean"]]}, "[['mean']]"),
        ({"pooling_mode_weightedmean_tokens": True}, "['pooling_mode_weightedmean_tokens']"),
        ({}, "none"),
    ],
)
def test_another_way_to_pool_is_refused_and_named(tmp_path: Path, config: Any, named: str) -> None:
    with pytest.raises(ModelFolderError) as caught:
        EmbeddingHead(folder(tmp_path, config))
    assert caught.value.detail == f"1_Pooling/config.json: pooling {named} is not supported"
