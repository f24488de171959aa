"""Messages for people: what is wrong with a value, and what is allowed."""

from collections.abc import Callable, Mapping
from typing import Any

LONGEST_VALUE = 60
"""Characters of a value that a message repeats."""

Context = Mapping[str, Any]

WORDS: dict[str, Callable[[Context], str]] = {
    "missing": lambda _: "is missing",
    "extra_forbidden": lambda _: "is no such field",
    "literal_error": lambda given: f"takes {given['expected']}",
    "enum": lambda given: f"takes {given['expected']}",
    "greater_than_equal": lambda given: f"takes {given['ge']:g} or more",
    "greater_than": lambda given: f"takes more than {given['gt']:g}",
    "less_than_equal": lambda given: f"takes {given['le']:g} or less",
    "less_than": lambda given: f"takes less than {given['lt']:g}",
    "finite_number": lambda _: "takes a finite number",
    "int_type": lambda _: "takes a whole number",
    "int_parsing": lambda _: "takes a whole number",
    "int_parsing_size": lambda _: "takes a whole number, and not that large a one",
    "int_from_float": lambda _: "takes a whole number",
    "float_type": lambda _: "takes a number",
    "float_parsing": lambda _: "takes a number",
    "bool_type": lambda _: "takes true or false",
    "bool_parsing": lambda _: "takes true or false",
    "string_type": lambda _: "takes text",
    "string_unicode": lambda _: "takes text",
    "path_type": lambda _: "takes a path",
    "dict_type": lambda _: "takes a mapping",
    "model_type": lambda _: "takes a mapping",
    "tuple_type": lambda _: "takes a list",
    "string_pattern_mismatch": lambda given: f"takes text like {given['pattern']}",
}
"""Type of an error -> what to say; pydantic's own words where it is not here."""

VALUELESS = frozenset({"missing", "extra_forbidden"})
"""Types of errors that are not about the value."""


def explain(item: Mapping[str, Any]) -> str:
    """What is wrong, such as `0: takes 1 or more`; the caller says where.

    Args:
        item: one of `ValidationError.errors()`.
    """
    kind, given = item["type"], item.get("ctx", {})
    if kind == "value_error":
        return encodable(item["msg"].removeprefix("Value error, "))
    words = WORDS[kind](given) if kind in WORDS else str(item["msg"])
    return words if kind in VALUELESS else f"{shown(item['input'])}: {words}"


def shown(value: Any) -> str:
    """A value as a message repeats it."""
    text = ascii(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def encodable(text: str) -> str:
    """Text that every encoder takes: lone surrogates, which UTF-8 does not have, are spelled out.

    They come from names of files and from bytes decoded with `surrogateescape`.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def summary(error: BaseException) -> str:
    """One line about an exception: its class and what it says, 500 characters at most."""
    text = " ".join(said(error).split())
    name = type(error).__name__
    return encodable((f"{name}: {text}" if text else name)[:500])


def said(error: BaseException) -> str:
    """What an exception says of itself."""
    try:
        return str(error)
    except Exception:  # in the __str__ of a model's own exception
        return "it cannot be shown"
