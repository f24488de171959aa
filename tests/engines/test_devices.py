"""The device that a torch model gets."""

import pytest
import torch

from inferstack.engines.devices import prepare_device
from inferstack.engines.model_config import ModelConfig


@pytest.mark.parametrize(
    ("configured", "told", "device"),
    [("auto", None, "cuda:0"), ("cuda", None, "cuda:0"), ("auto", "cuda:1", "cuda:1")],
)
def test_a_gpu_goes_by_its_full_name(
    monkeypatch: pytest.MonkeyPatch, configured: str, told: str | None, device: str
) -> None:
    # An exported program compares devices by name, and tensors on the first GPU say `cuda:0`.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = ModelConfig(engine="transformers", task="sentence-embedding", device=configured)
    assert str(prepare_device(config, told)) == device
