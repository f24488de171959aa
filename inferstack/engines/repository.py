"""The model repository: folders `<model>/<version>/` with a `config.yaml`. Loads no model."""

import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.engines import config_file
from inferstack.engines.model_config import MOST_CLAIMED, ModelConfig
from inferstack.engines.text import TEXT_SCHEMA, token_limit
from inferstack.errors import ModelFolderError
from inferstack.task import deployment_name
from inferstack.wording import summary

log = logging.getLogger(__name__)

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
DEFAULT_MAX_TOKENS = 8192
"""Tokens of one input where its model does not say; never less than one text may have."""


@dataclass(frozen=True)
class ModelEntry:
    """One version of one model as its folder says; `error` tells what is wrong with it."""

    model: str
    version: int
    path: Path
    config: ModelConfig | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """`model:version`."""
        return deployment_name(self.model, self.version)

    @property
    def ready_config(self) -> ModelConfig:
        """The configuration.

        Raises:
            ModelFolderError: the folder is broken.
        """
        if self.config is None:
            raise ModelFolderError(f"{self.name}: {self.error}")
        return self.config

    @property
    def source(self) -> Path:
        """The folder of the model's files.

        Raises:
            ModelFolderError: the package that should hold them is not installed.
        """
        reference = self.ready_config.source
        if reference is None:
            return self.path
        package, _, inner = reference.removeprefix("package:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModelFolderError(f"{self.name}: the package '{package}' is not installed")
        root = Path(next(iter(spec.submodule_search_locations)))
        if ".." in inner.split("/") or not (root / inner).is_dir():
            raise ModelFolderError(f"{self.name}: '{reference}' is not a folder")
        return root / inner

    @property
    def max_cost(self) -> float | None:
        """The longest text taken, in tokens; None for other inputs."""
        config = self.ready_config
        if config.engine != "transformers":
            return None
        return config.limits.max_cost or token_limit(self.source)

    @property
    def max_tokens(self) -> int:
        """Tokens that one input of a text model may have, all its texts together.

        Raises:
            ModelFolderError: it is less than one text may have.
        """
        longest = int(self.max_cost or 0)
        given = self.ready_config.limits.max_tokens
        if given is not None and given < longest:
            raise ModelFolderError(f"limits: max_tokens {given} is less than max_cost {longest}")
        return given or max(DEFAULT_MAX_TOKENS, longest)

    def input_schema(self, settings: Settings) -> dict[str, Any] | None:
        """JSON Schema of the input; text models have one of their own.

        In production it forbids the test-only fields.
        """
        config = self.ready_config
        schema = config.input_schema
        if schema is None and config.engine == "transformers":
            schema = TEXT_SCHEMA
        if config.test_only and settings.environment == "production":
            forbidden = dict.fromkeys(config.test_only, False)
            properties = {**(schema or {}).get("properties", {}), **forbidden}
            return {**(schema or {}), "properties": properties}
        return schema

    def batch_size(self, settings: Settings) -> int:
        """Inputs per call of predict."""
        return self.ready_config.batch.max_size or settings.batch_size

    def batch_wait(self, settings: Settings) -> float:
        """Seconds that a free device waits for a batch to fill."""
        return min(self.ready_config.batch.max_wait_ms, settings.max_batch_wait_ms) / 1000

    def lookahead(self, settings: Settings) -> int:
        """Batches claimed at once."""
        config = self.ready_config
        usual = 4 if config.engine == "transformers" else 1
        most = max(1, MOST_CLAIMED // self.batch_size(settings))
        return config.batch.lookahead or min(usual, most)

    def deployment(self, settings: Settings) -> Deployment:
        """What the registry holds of it; failed if the folder is broken."""
        config = self.config
        if config is None:
            return Deployment(
                model=self.model,
                version=self.version,
                state=DeploymentState.FAILED,
                reason=self.error,
            )
        return Deployment(
            model=self.model,
            version=self.version,
            engine=config.engine,
            task=config.task,
            input_schema=self.input_schema(settings),
            max_cost=self.max_cost,
            batch_size=self.batch_size(settings),
            compute_timeout=config.timeout,
            max_queue=config.limits.max_queue,
            fallback=config.fallback,
            test_only=bool(config.test_only),
        )


def scan(path: Path, settings: Settings) -> list[ModelEntry]:
    """Reads every model folder; a broken one gives an entry with an error.

    A model whose folder cannot be listed is left out, and logged.

    Folders whose name is not a model name, and versions that are not positive integers, are
    not part of the repository. MODEL_LIST restricts the models.

    Args:
        path: the repository, usually the setting MODEL_PATH.
        settings: for MODEL_LIST.

    Raises:
        ModelFolderError: the repository itself is not a readable folder.
    """
    try:
        folders = sorted(path.iterdir())
    except OSError as error:
        raise ModelFolderError(f"MODEL_PATH={path}: {error.strerror or error}") from None
    wanted = settings.model_list
    return [
        _entry(folder.name, int(version.name), version, settings)
        for folder in folders
        if MODEL_NAME.fullmatch(folder.name) and (not wanted or folder.name in wanted)
        for version in _versions(folder)
    ]


def _versions(folder: Path) -> list[Path]:
    try:
        entries = folder.iterdir() if folder.is_dir() else ()
        found = [entry for entry in entries if VERSION.fullmatch(entry.name)]
        return sorted(entry for entry in found if entry.is_dir())
    except OSError as error:
        log.error("the model %s is left out: %s: %s", folder.name, folder, error.strerror or error)
        return []


def find(entries: list[ModelEntry], model: str, version: int) -> ModelEntry:
    """The entry of one model version.

    Raises:
        ModelFolderError: there is none.
    """
    for entry in entries:
        if entry.model == model and entry.version == version:
            return entry
    raise ModelFolderError(f"there is no folder for {deployment_name(model, version)}")


def _entry(model: str, version: int, path: Path, settings: Settings) -> ModelEntry:
    try:
        entry = ModelEntry(model, version, path, config=config_file.read(path / config_file.FILE))
        _ = entry.source, entry.max_tokens
        size, ahead = entry.batch_size(settings), entry.lookahead(settings)
        if size * ahead > MOST_CLAIMED:
            problem = f"{size} (max_size or BATCH_SIZE) x {ahead} (lookahead) = {size * ahead}"
            raise ModelFolderError(f"batch: {problem} tasks a claim: at most {MOST_CLAIMED}")
    except ModelFolderError as error:
        return ModelEntry(model, version, path, error=error.detail)
    # Whatever a folder holds, the others are served.
    except Exception as error:
        return ModelEntry(model, version, path, error=summary(error))
    return entry
