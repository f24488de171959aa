"""What a model's `config.yaml` may say."""

import re
from typing import Annotated, Any, Literal

import jsonschema_rs
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from inferstack.wording import shown

MOST_CLAIMED = 1000
"""Tasks that one claim may ask for: a script of the queue handles no more at once."""

DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
SOURCE = re.compile(r"package:[A-Za-z0-9_]+(/[A-Za-z0-9_.-]+)*")

TASKS = {
    "python": None,
    "torch": None,
    "transformers": ("sentence-embedding", "text-classification"),
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    downscale_delay: Annotated[float, Field(ge=0, le=86400)] = 60.0
    """Seconds for which fewer replicas must have been enough before one ends."""

    @model_validator(mode="after")
    def _ordered(self) -> "ReplicaRange":
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self


def _form_of_replicas(value: Any) -> str | None:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool):
        return "number"
    return "range" if isinstance(value, dict | ReplicaRange) else None


Replicas = Annotated[
    Annotated[Literal["auto"], Tag("auto")]
    | Annotated[int, Field(ge=1, le=1024), Tag("number")]
    | Annotated[ReplicaRange, Tag("range")],
    Discriminator(
        _form_of_replicas,
        custom_error_type="replicas",
        custom_error_message="takes 'auto', a whole number, or {min: ..., max: ...}",
    ),
]


class LimitsConfig(_Section):
    """What is refused at the door."""

    max_cost: Annotated[float, Field(gt=0)] | None = None
    """Longest text, in tokens; what the model's own files say if None. Only for text."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of one input, all its texts together; DEFAULT_MAX_TOKENS if None. Only for text.

    Choose it so that one input takes a few seconds: it cannot be cut up, and holds up the others.
    """
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
    replicas: Replicas = "auto"
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    """CPU threads of one replica."""
    num_gpus: Annotated[float, Field(ge=0, le=64)] | None = None
    """GPUs of one replica; a fraction shares one.

    If None and the device may be a GPU: 1, or less where models with `auto` outnumber the GPUs.
    """
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:<n>`."""
    timeout: Annotated[float, Field(gt=0, le=86400)] = 60.0
    """Seconds that one call of predict may take."""
    fallback: Annotated[int, Field(ge=1)] | None = None
    """Version that takes the requests for no particular version while this one keeps failing."""
    limits: LimitsConfig = LimitsConfig()
    input_schema: dict[str, Any] | None = None
    test_only: tuple[str, ...] = ()
    """Fields of the input that are refused in production."""
    source: str | None = None
    """`package:<name>/<folder>`: files inside an installed package; the folder itself if None."""
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()

    @field_validator("num_gpus")
    @classmethod
    def _part_or_whole(cls, num_gpus: float | None) -> float | None:
        if num_gpus is not None and num_gpus > 1 and num_gpus % 1:
            raise ValueError(f"{num_gpus:g}: takes a part of one GPU, or a whole number")
        return num_gpus

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICE.fullmatch(device):
            raise ValueError(f"{shown(device)}: takes auto, cpu, cuda or cuda:<number>")
        return device

    @field_validator("source")
    @classmethod
    def _inside_a_package(cls, source: str | None) -> str | None:
        if source is not None and not SOURCE.fullmatch(source):
            raise ValueError(f"{shown(source)}: takes package:<name>/<folder>")
        return source

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
            raise ValueError("engine: torch needs inputs and outputs")
        if self.engine != "transformers":
            for name in ("max_cost", "max_tokens"):
                if getattr(self.limits, name) is not None:
                    raise ValueError(f"limits.{name}: only the engine transformers counts tokens")
        return self
