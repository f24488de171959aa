"""Text inputs: `{"text": ...}` or `{"texts": [...]}`, and counting tokens without torch."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from inferstack.errors import InvalidInputError, ModelFolderError

MAX_TEXTS = 1000
TEXT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "minLength": 1},
        "texts": {
            "type": "array",
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "maxItems": MAX_TEXTS,
        },
    },
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}
CHARACTERS_PER_TOKEN = 16
"""A text with more characters per allowed token is refused without counting.

Natural languages have fewer than half as many; only runs of spaces or of noise have more.
"""


COUNT_FROM_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Kinds of models whose first position is the one behind `pad_token_id`, so that of 514 positions
512 are left. A longer text would be an error of the device, which costs the replica."""


def texts_of(data: Any) -> list[str]:
    """The texts of an input that `TEXT_SCHEMA` accepts.

    Raises:
        InvalidInputError: neither `text` nor `texts` is there.
    """
    if isinstance(data, dict):
        text = data.get("text")
        if isinstance(text, str):
            return [text]
        texts = data.get("texts")
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            return texts
    raise InvalidInputError("the input must have 'text' or 'texts'")


def too_large(field: str, size: str, most: int) -> InvalidInputError:
    """The error of a field that has more than the model takes.

    Args:
        field: as in `errors`.
        size: how much it has, such as `300 tokens`.
        most: how much it may have.
    """
    message = f"has {size}; the model takes {most} at most"
    return InvalidInputError(f"{field} {message}", errors=[{"field": field, "message": message}])


def load_tokenizer(folder: Path) -> Tokenizer:
    """The fast tokenizer of a model folder, which neither truncates nor pads.

    Raises:
        ModelFolderError: there is no readable `tokenizer.json`.
    """
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        # tokenizers raises bare Exception for a missing and for a broken file.
        raise ModelFolderError(f"{path}: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_limit(folder: Path) -> float:
    """Tokens that a model takes, by what its files say.

    Raises:
        ModelFolderError: no file says it.
    """
    known = [
        _number(read_json(folder / name), key)
        for name, key in (
            ("sentence_bert_config.json", "max_seq_length"),
            ("tokenizer_config.json", "model_max_length"),
        )
    ]
    known.append(_positions(read_json(folder / "config.json")))
    limits = [limit for limit in known if limit is not None]
    if not limits:
        raise ModelFolderError("limits.max_cost is missing and the model's files do not say it")
    return min(limits)


def read_json(path: Path) -> Any:
    """A JSON file of a model folder, None if it does not exist.

    Raises:
        ModelFolderError: it is not readable.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path.name}: {error}") from None


def _positions(config: Any) -> float | None:
    positions = _number(config, "max_position_embeddings")
    if positions is None or config.get("model_type") not in COUNT_FROM_PADDING:
        return positions
    padding = config.get("pad_token_id", 1)
    return positions - (padding if isinstance(padding, int) else 1) - 1


def _number(content: Any, key: str) -> float | None:
    value = content.get(key) if isinstance(content, dict) else None
    return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else None
