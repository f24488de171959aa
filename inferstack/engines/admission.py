"""Checks an input before it is queued, without the model."""

from typing import Any

import jsonschema_rs
from tokenizers import Tokenizer

from inferstack.deployment import Deployment
from inferstack.engines.repository import ModelEntry
from inferstack.engines.text import (
    CHARACTERS_PER_TOKEN,
    MAX_TEXTS,
    load_tokenizer,
    texts_of,
    too_large,
)
from inferstack.errors import InvalidInputError

MAX_ERRORS = 10
MAX_MESSAGE = 500
"""Characters of one error: names of fields that the caller invented are in it."""

EXPLAINABLE = 2000
"""Values in an input up to which all its errors are looked for; in a larger one only the first.

The library finds all errors at once, and each may take as long as the input is large: together
17 seconds for 1.6 million wrong items. The first alone takes at most about 0.2 s.
"""

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
        # The mask stands where a message would repeat the input, however long that is.
        self._validator = (
            jsonschema_rs.validator_for(schema, mask="") if schema is not None else None
        )
        self._counter: _TokenCounter | None = None
        limit = deployment.max_cost
        if (
            entry is not None
            and entry.config is not None
            and deployment.engine == "transformers"
            and limit is not None
        ):
            tokenizer = load_tokenizer(entry.source)
            self._counter = _TokenCounter(tokenizer, int(limit), entry.max_tokens)
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
        errors = [_entry(error) for error in self._errors(data)]
        return InvalidInputError(f"{errors[0]['field']}: {errors[0]['message']}", errors=errors)

    def _errors(self, data: dict[str, Any]) -> list[jsonschema_rs.ValidationError]:
        assert self._validator is not None
        if _is_small(data):
            found = self._validator.iter_errors(data)
            return [error for error, _ in zip(found, range(MAX_ERRORS), strict=False)]
        try:
            self._validator.validate(data)
        except jsonschema_rs.ValidationError as error:
            return [error]
        raise AssertionError("an input is valid after all")


def _is_small(data: dict[str, Any]) -> bool:
    left = EXPLAINABLE
    containers: list[Any] = [data]
    while containers:
        container = containers.pop()
        left -= len(container)
        if left < 0:
            return False
        children = container.values() if isinstance(container, dict) else container
        containers += [child for child in children if isinstance(child, dict | list)]
    return True


def _entry(error: jsonschema_rs.ValidationError) -> dict[str, str]:
    field = ".".join(["data", *(str(part) for part in error.instance_path)])
    message = error.message.strip()
    if message.startswith("False schema"):
        message = "this field is not allowed here"
    return {"field": _shortened(field), "message": _shortened(message)}


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


class _TokenCounter:
    """Counts exactly only where the length leaves a doubt."""

    def __init__(self, tokenizer: Tokenizer, limit: int, max_tokens: int) -> None:
        """Args: limit: tokens of one text. max_tokens: of all texts of an input."""
        self._tokenizer = tokenizer
        self._limit = limit
        self._max_tokens = max_tokens
        self._special = tokenizer.num_special_tokens_to_add(False)
        # In ASCII every token covers a character; one more for a prefix that a tokenizer adds.
        self._certain = limit - self._special - 1

    def doubtful(self, data: dict[str, Any]) -> int:
        """Characters that must be tokenized; the input may be of any shape."""
        text, texts = data.get("text"), data.get("texts")
        found = 0 if not isinstance(text, str) or self._is_certain(text) else len(text)
        if isinstance(texts, list) and len(texts) <= MAX_TEXTS:
            strings = [text for text in texts if isinstance(text, str)]
            every = not self._fit_together(strings)
            found += sum(len(text) for text in strings if every or not self._is_certain(text))
        return found

    def check(self, data: dict[str, Any]) -> float:
        texts = texts_of(data)
        field = "data.text" if "text" in data else "data.texts.{}"
        self._refuse_characters(texts, field)
        every = not self._fit_together(texts)
        cost = 0.0
        for position, text in enumerate(texts):
            if every or not self._is_certain(text):
                cost += self._count(text, field.format(position))
            else:
                cost += self._special + max(1.0, len(text) / CHARACTERS_A_TOKEN)
        if cost > self._max_tokens:
            raise too_large("data.texts", f"{cost:.0f} tokens in all", self._max_tokens)
        return cost

    def _refuse_characters(self, texts: list[str], field: str) -> None:
        """Refuses without counting what cannot fit."""
        most = self._limit * CHARACTERS_PER_TOKEN
        for position, text in enumerate(texts):
            if len(text) > most:
                raise too_large(field.format(position), f"{len(text)} characters", most)
        total, most = sum(map(len, texts)), self._max_tokens * CHARACTERS_PER_TOKEN
        if total > most:
            raise too_large("data.texts", f"{total} characters in all", most)

    def _is_certain(self, text: str) -> bool:
        return len(text) <= self._certain and text.isascii()

    def _fit_together(self, texts: list[str]) -> bool:
        """Whether the length alone says that all texts have few enough tokens together.

        One text has a limit of its own. Characters beyond ASCII have one to four tokens in
        nearly every tokenizer; what has more is left to the replica, which counts.
        """
        if len(texts) < 2:
            return True
        longest = sum(len(text) * (1 if text.isascii() else 4) for text in texts)
        return longest + len(texts) * (self._special + 1) <= self._max_tokens

    def _count(self, text: str, field: str) -> int:
        count = len(self._tokenizer.encode_batch_fast([text])[0])
        if count > self._limit:
            raise too_large(field, f"{count} tokens", self._limit)
        return count
