"""What becomes of a transformer's output: embeddings or labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from inferstack.engines.text import read_json
from inferstack.errors import ModelFolderError

POOLINGS = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
"""What sentence-transformers calls the ways to pool that are known here, now and in older files."""


class EmbeddingHead:
    """Pools token vectors into sentence vectors, as sentence-transformers stores it.

    `modules.json` and `<n>_Pooling/config.json` say how; mean pooling with L2 normalisation
    without them.
    """

    def __init__(self, folder: Path) -> None:
        """Reads the files.

        Raises:
            ModelFolderError: the model pools in a way that is not known here.
        """
        self._pooling, self._normalize = "mean", True
        modules = read_json(folder / "modules.json")
        if modules is None:
            return
        kinds = {str(module["type"]).rsplit(".", 1)[-1]: module for module in modules}
        unknown = kinds.keys() - {"Transformer", "Pooling", "Normalize"}
        if unknown:
            raise ModelFolderError(f"modules.json: {', '.join(sorted(unknown))} is not supported")
        self._normalize = "Normalize" in kinds
        if "Pooling" in kinds:
            self._pooling = _pooling(folder / kinds["Pooling"]["path"] / "config.json")

    def finish(self, output: Any, mask: torch.Tensor) -> list[Any]:
        """Float32 numpy vectors of the hidden size."""
        vectors = self._pool(output.last_hidden_state, mask)
        if self._normalize:
            vectors = torch.nn.functional.normalize(vectors, p=2, dim=1)
        return list(vectors.float().cpu().numpy())

    def _pool(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self._pooling == "cls":
            return hidden[:, 0]
        present = mask.unsqueeze(-1).to(hidden.dtype)
        if self._pooling == "max":
            return hidden.masked_fill(present == 0, float("-inf")).amax(1)
        return (hidden * present).sum(1) / present.sum(1).clamp(min=1e-9)

    def single(self, row: Any) -> dict[str, Any]:
        """`{"embedding": [...]}`."""
        return {"embedding": row}

    def many(self, rows: list[Any]) -> dict[str, Any]:
        """`{"embeddings": [[...], ...]}`."""
        return {"embeddings": rows}


class ClassificationHead:
    """Scores of labels: probabilities, but the numbers themselves of a regression.

    Labels exclude each other, unless the model says that they do not (`problem_type`) or has but
    one.
    """

    def __init__(self, config: Any) -> None:
        """Args: config: of a transformers model."""
        labels: dict[int, str] = config.id2label
        self._labels = [labels[number] for number in sorted(labels)]
        self._scores = _scores(config.problem_type, len(labels))

    def finish(self, output: Any, mask: torch.Tensor) -> list[Any]:
        """`{"label", "score", "scores": {label: score}}` for each text."""
        rows = self._scores(output.logits.float()).cpu().tolist()
        return [self._row(row) for row in rows]

    def _row(self, scores: list[float]) -> dict[str, Any]:
        best = max(range(len(scores)), key=scores.__getitem__)
        named = dict(zip(self._labels, scores, strict=True))
        return {"label": self._labels[best], "score": scores[best], "scores": named}

    def single(self, row: Any) -> Any:
        """The row itself."""
        return row

    def many(self, rows: list[Any]) -> dict[str, Any]:
        """`{"results": [...]}`."""
        return {"results": rows}


def _scores(problem: str | None, labels: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What makes scores of the logits, as transformers' own pipeline chooses it."""
    if problem == "regression":
        return lambda logits: logits
    if problem == "multi_label_classification" or labels == 1:
        return torch.sigmoid
    return lambda logits: torch.softmax(logits, dim=-1)


def _pooling(path: Path) -> str:
    """How a model pools, by its `<n>_Pooling/config.json`; older ones have a key for each way."""
    config = read_json(path) or {}
    said = config.get("pooling_mode")
    if said is None:
        said = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
    chosen = [said] if isinstance(said, str) else said
    for name, way in POOLINGS.items():
        if chosen == [name]:
            return way
    where = f"{path.parent.name}/{path.name}"
    raise ModelFolderError(f"{where}: pooling {chosen or 'none'} is not supported")
