"""Reads a `config.yaml`, and says what is wrong with one: line, field, what is allowed."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from inferstack.engines.model_config import TASKS, ModelConfig
from inferstack.errors import ModelFolderError
from inferstack.wording import encodable, explain, shown

FILE = "config.yaml"
NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
MOST_TOLD = 5
"""Mistakes that one message tells of."""

SYNTAX: tuple[tuple[str, str], ...] = (
    ("found character '\\t'", "a tab: YAML is indented by spaces"),
    (
        "mapping values are not allowed",
        "a ':' too many: check how it is indented, or quote the value",
    ),
    ("could not find expected ':'", "a line without ':' after its field"),
    ("expected ',' or ']'", "a list that is not closed by ]"),
    ("expected ',' or '}'", "a mapping that is not closed by }"),
    ("expected the node content", "a bracket that is not closed, or nothing where a value belongs"),
    ("while scanning a quoted scalar", "a quote that is not closed"),
    ("expected <block end>", "indented differently from the lines before"),
    ("could not determine a constructor", "a tag with '!': only plain values are taken"),
    ("found undefined alias", "an alias with '*' that nothing defines"),
)
"""What PyYAML says -> what that means; its own words where it is not here."""


def read(path: Path) -> ModelConfig:
    """The configuration in a file.

    Raises:
        ModelFolderError: the file is missing or wrong; one line says where, and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except FileNotFoundError:
        raise ModelFolderError(f"{FILE} is missing") from None
    except yaml.MarkedYAMLError as error:
        raise ModelFolderError(_syntax(error)) from None
    except OSError as error:
        raise ModelFolderError(f"{FILE}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ModelFolderError(f"{FILE}: it takes text in UTF-8") from None
    except RecursionError:
        raise ModelFolderError(f"{FILE}: it is nested too deep") from None
    except yaml.reader.ReaderError:
        raise ModelFolderError(f"{FILE}: a character that YAML does not take") from None
    except (ValueError, yaml.YAMLError) as error:
        said = encodable(" ".join(str(error).split()))
        problem = f"a value that looks like a date or a number and is none: {said}"
        raise ModelFolderError(f"{FILE}: {problem}") from None
    if not isinstance(raw, dict):
        raise ModelFolderError(f"{FILE} line 1: it takes fields, such as engine: python")
    try:
        return ModelConfig.model_validate(raw)
    except ValidationError as error:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        problems = "; ".join(_problem(item, root) for item in error.errors()[:MOST_TOLD])
        raise ModelFolderError(f"{FILE} {problems}") from None


def _syntax(error: yaml.MarkedYAMLError) -> str:
    said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    words = next(
        (ours for theirs, ours in SYNTAX if theirs in said), f"not YAML, {encodable(said)}"
    )
    # Where it began tells more than the end of the file, which is where it was noticed.
    mark = error.context_mark if "not closed" in words else error.problem_mark
    mark = mark or error.problem_mark
    return f"{FILE} line {mark.line + 1}: {words}" if mark else f"{FILE}: {words}"


def _problem(item: Mapping[str, Any], root: yaml.Node | None) -> str:
    where = list(item["loc"])
    if where[:1] == ["replicas"]:
        del where[1:2]  # which of its forms it has
    words = explain(item)
    if not where and (named := re.match(r"([a-z_.]+): ", words)):
        # What is wrong between fields begins with the one to change.
        where, words = list(named[1].split(".")), words.removeprefix(named[0])
    if item["type"] == "extra_forbidden":
        words = f"{words}; {_meant(str(where[-1]), _fields(where[:-1]))}"
    elif item["type"] == "missing" and where == ["engine"]:
        words = f"{words}; takes {', '.join(TASKS)}"
    field = ".".join(str(part) if NAME.fullmatch(str(part)) else shown(part) for part in where)
    return f"line {_line(root, where)}: {field}: {words}" if field else f"line 1: {words}"


def _line(node: yaml.Node | None, where: Sequence[Any]) -> int:
    """Where a field is, or what should hold it."""
    line = 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _fields(where: Sequence[Any]) -> list[str]:
    """The fields of the section at a place."""
    section: type[BaseModel] = ModelConfig
    for part in where:
        if part in section.model_fields:
            section = _section(section.model_fields[str(part)].annotation) or section
    return list(section.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _section(arg))), None)


def _meant(name: str, fields: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, fields, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
