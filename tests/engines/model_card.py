"""What the demo model's card says to compute."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from inferstack.config import load
from inferstack.engines.repository import find, scan

MODELS = Path(__file__).parents[2] / "models"


def embedding(text: str) -> np.ndarray[Any, Any]:
    """Of one text, without padding and without a batch; of length 1."""
    from transformers import AutoModel  # takes seconds, in every process that collects tests

    source = find(scan(MODELS, load()), "minilm", 1).source
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = AutoModel.from_pretrained(source, local_files_only=True)
    with torch.inference_mode():
        hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state
    vector = hidden[0].mean(0).numpy()
    return np.asarray(vector / np.linalg.norm(vector))
