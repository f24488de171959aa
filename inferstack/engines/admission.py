"""Checks an input before it is queued, without the model."""

from typing import Any

import jsonschema_rs
from tokenizers import Tokenizer

from inferstack.deployment import Deployment
from inferstack.engines.repository import ModelEntry
from inferstack.engines.text import CHARACTERS_PER_TOKEN, load_tokenizer, texts_of
from inferstack.errors import InvalidInputError

MAX_ERRORS = 10
CHARACTERS_A_TOKEN = 4.0
"""English text has about four characters a token; good enough for a fair share."""

QUICK = 4096
"""Characters that are tokenized in a few milliseconds, short enough for an event loop."""


class Admission:
    """What one deployment takes. Safe to use from several threads."""

    def __init__(self, deployment: Deployment, entry: ModelEntry | None) -> None:
        """Compiles the schema; loads the tokenizer of a text model.

        Args:
            deployment: what the registry holds of it.
            entry: its folder, if this process can see it; without the folder only the schema
                is checked here and the replica counts the tokens.
        """
        schema = deployment.input_schema
        self._validator = jsonschema_rs.validator_for(schema) if schema is not None else None
        self._counter: _TokenCounter | None = None
        limit = deployment.max_cost
        if (
            entry is not None
            and entry.config is not None
            and deployment.engine == "transformers"
            and limit is not None
        ):
            self._counter = _TokenCounter(load_tokenizer(entry.source), int(limit))
        self.trivial = self._validator is None and self._counter is None
        """Whether everything is taken at cost 1."""

    def slow(self, data: dict[str, Any], inputs: int = 1) -> bool:
        """Whether `check` may take long enough to hold up an event loop.

        Args:
            data: an input, not checked yet.
            inputs: how many are checked in a row.
        """
        return self._counter is not None and self._counter.doubtful(data) * inputs > QUICK

    def check(self, data: dict[str, Any]) -> float:
        """Returns the cost of an input, in tokens for text and 1 otherwise.

        Raises:
            InvalidInputError: the model does not take it; `errors` names each wrong field.
        """
        if self.trivial:
            return 1.0
        if self._validator is not None and not self._validator.is_valid(data):
            raise self._explain(data)
        if self._counter is not None:
            return self._counter.check(data)
        return 1.0

    def _explain(self, data: dict[str, Any]) -> InvalidInputError:
        assert self._validator is not None
        errors = []
        for error in self._validator.iter_errors(data):
            path = ".".join(["data", *(str(part) for part in error.instance_path)])
            message = error.message[:500]
            if message.startswith("False schema"):
                message = "this field is not allowed here"
            errors.append({"field": path, "message": message})
            if len(errors) == MAX_ERRORS:
                break
        return InvalidInputError(f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)


class _TokenCounter:
    """Counts exactly only where the length leaves a doubt."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._special = tokenizer.num_special_tokens_to_add(False)
        # In ASCII every token covers a character; one more for a prefix that a tokenizer adds.
        self._certain = limit - self._special - 1

    def doubtful(self, data: dict[str, Any]) -> int:
        """Characters that must be tokenized; the input may be of any shape."""
        text, texts = data.get("text"), data.get("texts")
        found = 0 if not isinstance(text, str) or self._is_certain(text) else len(text)
        if isinstance(texts, list):
            found += sum(len(t) for t in texts if isinstance(t, str) and not self._is_certain(t))
        return found

    def check(self, data: dict[str, Any]) -> float:
        cost = 0.0
        field = "data.text" if "text" in data else "data.texts.{}"
        most = self._limit * CHARACTERS_PER_TOKEN
        texts = texts_of(data)
        for position, text in enumerate(texts):
            if len(text) > most:
                message = f"has {len(text)} characters; the model takes {most} at most"
                raise _invalid(field.format(position), message)
        for position, text in enumerate(texts):
            if self._is_certain(text):
                cost += self._special + max(1.0, len(text) / CHARACTERS_A_TOKEN)
            else:
                cost += self._count(text, field.format(position))
        return cost

    def _is_certain(self, text: str) -> bool:
        return len(text) <= self._certain and text.isascii()

    def _count(self, text: str, field: str) -> int:
        count = len(self._tokenizer.encode_batch_fast([text])[0])
        if count > self._limit:
            raise _invalid(field, f"has {count} tokens; the model takes {self._limit} at most")
        return count


def _invalid(field: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{field} {message}", errors=[{"field": field, "message": message}])
