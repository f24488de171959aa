"""Keeps `torch.export.load` from running code that an archive brings along.

It unpickles without restriction: payloads marked `use_pickle`, constants that are objects, and
sample inputs or old-style weights that `weights_only=True` refuses. And an archive that
AOTInductor compiled holds libraries, which it loads into the process. An archive with any of these
is refused before it is loaded.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from inferstack.errors import ModelLoadError

OBJECTS = ("custom_obj_", "opaque_obj_")
COMPILED = "/aotinductor/"
"""In the path of everything that AOTInductor put into an archive."""


def refuse_code(path: Path) -> None:
    """Checks an exported program.

    Raises:
        ModelLoadError: it is not an archive, or loading it would unpickle objects or run a library.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                _check(path, name, archive)
    except zipfile.BadZipFile as error:
        raise ModelLoadError(f"{path}: {error}") from None


def _check(path: Path, name: str, archive: zipfile.ZipFile) -> None:
    if COMPILED in f"/{name}":
        raise ModelLoadError(
            f"{path}: {name} is compiled code of whoever made the archive, which is not run here; "
            "save the program with torch.export.save"
        )
    if name.rsplit("/", 1)[-1].startswith(OBJECTS):
        raise ModelLoadError(f"{path}: {name} is a pickled object")
    if name.endswith(".json") and _uses_pickle(json.loads(archive.read(name))):
        raise ModelLoadError(f"{path}: {name} holds pickled tensors; export plain ones")
    if name.endswith(".pt") and (content := archive.read(name)):
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception:
            raise ModelLoadError(f"{path}: {name} holds pickled objects") from None


def _uses_pickle(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("use_pickle") is True or any(map(_uses_pickle, value.values()))
    return isinstance(value, list) and any(map(_uses_pickle, value))
