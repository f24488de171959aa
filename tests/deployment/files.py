"""What the deployment files of this repository say."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BESIDE = frozenset({"frontend", "monitoring", "nginx"})
"""Folders that images and Compose take files from."""


class _Loader(yaml.SafeLoader):
    """YAML with the tags of Compose, which say how two files are put together."""


def _plain(loader: _Loader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return None


for tag in ("!override", "!reset"):
    _Loader.add_constructor(tag, _plain)


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    """A Compose file, with its anchors resolved."""
    found: dict[str, Any] = yaml.load((ROOT / name).read_text(), _Loader)
    return found


def services() -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def example() -> dict[str, str]:
    """`.env.example`, with what is commented out, and with its variables put in."""
    values: dict[str, str] = {}
    for name, value in re.findall(
        r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE
    ):
        values[name] = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], value)
    return values


def images() -> set[str]:
    """Every image that Compose runs and does not build."""
    return {service["image"] for service in services().values() if "build" not in service}
