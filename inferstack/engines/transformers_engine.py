"""Text models in the layout of Hugging Face: safetensors, fast tokenizer."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from inferstack.batching import CostFit, CostModel, Limits, partition
from inferstack.config import Settings
from inferstack.engines.base import Prepared
from inferstack.engines.devices import prepare_device
from inferstack.engines.heads import ClassificationHead, EmbeddingHead
from inferstack.engines.repository import ModelEntry
from inferstack.engines.text import load_tokenizer, texts_of, too_large
from inferstack.errors import InferstackError, InvalidInputError, ModelLoadError

WARM_UP = ((1, 8), (4, 16), (8, 16), (8, 48))
"""Batches computed before the first request: inputs, tokens."""
WARM_UP_ROUNDS = 3
"""How often each is computed; the first round fills caches, the best of the others counts."""


class TextInput(NamedTuple):
    """The tokens of a task's texts."""

    sequences: list[list[int]]
    single: bool
    """Whether the caller sent `text` rather than `texts`."""


class Piece(NamedTuple):
    """One text of a batch."""

    cost: float
    place: int
    """Its place in the flattened batch."""
    ids: list[int]
    rank: int = 0
    suspect: bool = False


class TransformersEngine:
    """Sentence embeddings and text classification."""

    prepares_quickly = False
    prepares_by_model = False

    def __init__(self, entry: ModelEntry, settings: Settings, device: str | None) -> None:
        """Loads tokenizer and weights; only safetensors, only local files.

        Args:
            entry: the model's folder.
            settings: for the batch size.
            device: where to compute; what the configuration says if None.

        Raises:
            ModelLoadError: the device or the weights are missing.
            Exception: whatever transformers raises.
        """
        config, folder = entry.ready_config, entry.source
        self._target = prepare_device(config, device)
        self.device = str(self._target)
        self._tokenizer = load_tokenizer(folder)
        self._limit = int(entry.max_cost or 0)
        self._max_tokens = entry.max_tokens
        self._max_size = entry.batch_size(settings)
        self._cost_model = CostModel()
        kind = AutoModel if config.task == "sentence-embedding" else None
        self._model = _load(folder, kind or AutoModelForSequenceClassification, self._target)
        self._pad = _pad_id(self._model.config)
        self._head = EmbeddingHead(folder) if kind else ClassificationHead(self._model.config)

    def prepare(self, inputs: list[Any]) -> list[Prepared | InferstackError]:
        """Tokenizes all texts in one call of the tokenizer; cost is the tokens of a task.

        A text over its limit is an error, and so are too many texts; nothing is ever cut off.
        """
        texts: list[str] = []
        spans: list[tuple[int, int] | InferstackError] = []
        for data in inputs:
            try:
                found = texts_of(data)
            except InvalidInputError as error:
                spans.append(error)
                continue
            spans.append((len(texts), len(texts) + len(found)))
            texts += found
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        return [
            span
            if isinstance(span, InferstackError)
            else self._prepared(tokens[span[0] : span[1]], "text" in data)
            for span, data in zip(spans, inputs, strict=True)
        ]

    def _prepared(self, sequences: list[list[int]], single: bool) -> Prepared | InferstackError:
        for position, ids in enumerate(sequences):
            if len(ids) > self._limit:
                field = "data.text" if single else f"data.texts.{position}"
                return too_large(field, f"{len(ids)} tokens", self._limit)
        total = sum(map(len, sequences))
        if total > self._max_tokens:
            return too_large("data.texts", f"{total} tokens in all", self._max_tokens)
        return Prepared(TextInput(sequences, single), float(total))

    def predict(self, values: list[TextInput]) -> list[Any]:
        """Computes prepared texts; see the heads for the form of the outputs."""
        flat = [ids for value in values for ids in value.sequences]
        rows: list[Any] = [None] * len(flat)
        for chunk in self._chunks(flat, len(values)):
            results = self._forward([piece.ids for piece in chunk])
            for piece, row in zip(chunk, results, strict=True):
                rows[piece.place] = row
        outputs, start = [], 0
        for value in values:
            end = start + len(value.sequences)
            if value.single:
                outputs.append(self._head.single(rows[start]))
            else:
                outputs.append(self._head.many(rows[start:end]))
            start = end
        return outputs

    def _chunks(self, flat: list[list[int]], tasks: int) -> list[list[Piece]]:
        """The texts as they are computed; tasks of one text each are already a good batch."""
        pieces = [Piece(float(len(ids)), i, ids) for i, ids in enumerate(flat)]
        if len(flat) == tasks:
            return [pieces]
        batches = partition(pieces, Limits(self._max_size), self._cost_model)
        return [batch.items for batch in batches]

    def _forward(self, sequences: list[list[int]]) -> list[Any]:
        longest = max(map(len, sequences))
        if all(len(ids) == longest for ids in sequences):
            ids = torch.tensor(sequences, dtype=torch.long)
            mask = None
        else:
            padded = np.full((len(sequences), longest), self._pad, dtype=np.int64)
            present = np.zeros((len(sequences), longest), dtype=np.int64)
            for row, tokens in enumerate(sequences):
                padded[row, : len(tokens)] = tokens
                present[row, : len(tokens)] = 1
            ids, mask = torch.from_numpy(padded), torch.from_numpy(present).to(self._target)
        with torch.inference_mode():
            ids = ids.to(self._target)
            if mask is not None:
                output = self._model(input_ids=ids, attention_mask=mask)
            else:
                # Nothing is padded: without a mask the attention takes its fast way.
                mask = torch.ones_like(ids)
                output = self._model(input_ids=ids)
            return self._head.finish(output, mask)

    def warm_up(self, fit: CostFit) -> None:
        """Computes a few batches of different shapes and measures the fastest of each."""
        best: dict[tuple[int, int], float] = {}
        for turn in range(WARM_UP_ROUNDS):
            for count, length in WARM_UP:
                shape = min(count, self._max_size), min(length, self._limit)
                values = [TextInput([[self._pad] * shape[1]], True)] * shape[0]
                started = time.perf_counter()
                self.predict(values)
                if turn:
                    taken = time.perf_counter() - started
                    best[shape] = min(taken, best.get(shape, taken))
        for (count, length), taken in best.items():
            fit.observe(count, float(length), taken)
        self._cost_model = fit.model() or self._cost_model

    def close(self) -> None:
        """Frees the weights."""
        del self._model
        if self._target.type == "cuda":
            torch.cuda.empty_cache()


def _load(folder: Path, kind: Any, device: torch.device) -> Any:
    if not any(folder.glob("*.safetensors")):
        raise ModelLoadError(f"{folder}: there is no .safetensors file")
    quiet: Any = transformers_logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = kind.from_pretrained(
        folder, config=config, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.to(device).eval()


def _pad_id(config: Any) -> int:
    pad = getattr(config, "pad_token_id", None)
    return pad if isinstance(pad, int) else 0
