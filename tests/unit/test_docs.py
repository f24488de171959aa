"""The reference pages name everything that can be set."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from inferstack.config import Settings
from inferstack.engines.model_config import ModelConfig

DOCS = Path(__file__).parents[2] / "docs"


def _fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += _fields(kind, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_explained(name: str) -> None:
    assert f"`{name.upper()}`" in (DOCS / "settings.md").read_text()


@pytest.mark.parametrize("name", _fields(ModelConfig))
def test_every_field_of_a_model_is_explained(name: str) -> None:
    assert f"`{name}`" in (DOCS / "models.md").read_text()
