"""The model repository: folders `<model>/<version>/` with a `config.yaml`. Loads no model."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.engines.text import TEXT_SCHEMA, token_limit
from inferstack.errors import ModelFolderError
from inferstack.task import deployment_name

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
MOST_CLAIMED = 1000
"""Tasks that one claim may ask for: a script of the queue handles no more at once."""
TASKS = {
    "python": None,
    "torch": None,
    "transformers": ("sentence-embedding", "text-classification"),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchConfig(_Section):
    """How inputs are put together."""

    max_size: Annotated[int, Field(ge=1, le=MOST_CLAIMED)] | None = None
    """Inputs per call of predict; the setting BATCH_SIZE if None."""
    max_wait_ms: Annotated[float, Field(ge=0, le=100)] = 2.0
    """How long a free device waits for a batch to fill, from its first input."""
    lookahead: Annotated[int, Field(ge=1, le=64)] | None = None
    """Batches claimed at once, to sort inputs by length; at most 4 for text, else 1, if None."""


class ReplicaRange(_Section):
    """Bounds of auto-scaling."""

    min: Annotated[int, Field(ge=1, le=1024)] = 1
    max: Annotated[int, Field(ge=1, le=1024)]

    @model_validator(mode="after")
    def _ordered(self) -> "ReplicaRange":
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self


class LimitsConfig(_Section):
    """What is refused at the door."""

    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Largest input, in tokens for text; what the model's own files say if None."""
    max_queue: Annotated[int, Field(ge=1)] | None = None


class TensorConfig(_Section):
    """One declared input or output of a torch model, without its batch dimension."""

    name: str
    dtype: Literal[
        "float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"
    ] = "float32"
    shape: tuple[Annotated[int, Field(ge=-1)], ...] = ()
    """Sizes after the batch dimension; -1 takes any."""


class ModelConfig(_Section):
    """A `config.yaml`."""

    engine: Literal["python", "transformers", "torch"]
    task: str | None = None
    batch: BatchConfig = BatchConfig()
    replicas: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] | ReplicaRange = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """CPU threads of one replica."""
    num_gpus: Annotated[float, Field(ge=0, le=64)] | None = None
    """GPUs of one replica; a fraction shares one. 1 if None and the device may be a GPU."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    timeout: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """Seconds that one call of predict may take."""
    limits: LimitsConfig = LimitsConfig()
    input_schema: dict[str, Any] | None = None
    test_only: tuple[str, ...] = ()
    """Fields of the input that are refused in production."""
    source: Annotated[str, Field(pattern=r"^package:[A-Za-z0-9_]+(/[A-Za-z0-9_.-]+)*$")] | None = (
        None
    )
    """`package:<name>/<folder>`: files inside an installed package; the folder itself if None."""
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()

    @field_validator("input_schema")
    @classmethod
    def _valid_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            try:
                jsonschema_rs.validator_for(schema)
            except (ValueError, jsonschema_rs.ValidationError) as error:
                raise ValueError(str(error).splitlines()[0]) from None
        return schema

    @model_validator(mode="after")
    def _known_task(self) -> "ModelConfig":
        tasks = TASKS[self.engine]
        if tasks is not None and self.task not in tasks:
            raise ValueError(f"task: engine {self.engine} takes {' or '.join(tasks)}")
        if self.engine == "torch" and not (self.inputs and self.outputs):
            raise ValueError("engine torch needs inputs and outputs")
        return self


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
        """The largest input taken; None if unlimited."""
        config = self.ready_config
        if config.limits.max_cost is not None or config.engine != "transformers":
            return config.limits.max_cost
        return token_limit(self.source)

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
            test_only=bool(config.test_only),
        )


def scan(path: Path, settings: Settings) -> list[ModelEntry]:
    """Reads every model folder; a broken one gives an entry with an error.

    Folders whose name is not a model name, and versions that are not positive integers, are
    not part of the repository. MODEL_LIST restricts the models.

    Args:
        path: the repository, usually the setting MODEL_PATH.
        settings: for MODEL_LIST.

    Raises:
        ModelFolderError: the repository itself is not a readable folder.
    """
    try:
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    except OSError as error:
        raise ModelFolderError(f"MODEL_PATH={path}: {error.strerror or error}") from None
    wanted = settings.model_list
    return [
        _entry(folder.name, int(version.name), version, settings)
        for folder in folders
        if MODEL_NAME.fullmatch(folder.name) and (not wanted or folder.name in wanted)
        for version in sorted(folder.iterdir())
        if version.is_dir() and VERSION.fullmatch(version.name)
    ]


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
        entry = ModelEntry(model, version, path, config=_read(path / "config.yaml"))
        _ = entry.source, entry.max_cost
        size, ahead = entry.batch_size(settings), entry.lookahead(settings)
        if size * ahead > MOST_CLAIMED:
            problem = f"{size} (max_size or BATCH_SIZE) x {ahead} (lookahead) = {size * ahead}"
            raise ModelFolderError(f"batch: {problem} tasks a claim: at most {MOST_CLAIMED}")
    except ModelFolderError as error:
        return ModelEntry(model, version, path, error=error.detail)
    return entry


def _read(path: Path) -> ModelConfig:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFolderError("config.yaml is missing") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ModelFolderError(f"config.yaml: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ModelFolderError("config.yaml: it must be a mapping")
    try:
        return ModelConfig.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(_problem(item) for item in error.errors()[:5])
        raise ModelFolderError(f"config.yaml: {problems}") from None


def _problem(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else str(message)
