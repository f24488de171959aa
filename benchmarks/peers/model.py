"""What every peer serves: inferstack's own engine object, so that only the serving differs.

The variables that a peer reads, all set by `benchmarks.systems`:
`BENCH_MODEL` (`echo` or `minilm`), `BENCH_PORT`, `BENCH_BATCH` (largest batch),
`BENCH_REPLICAS` (model processes), `BENCH_THREADS` (torch threads of each).
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import orjson

from inferstack import config
from inferstack.batching import CostFit
from inferstack.engines import base, repository
from inferstack.errors import InferstackError

REPOSITORY = Path(__file__).resolve().parents[2] / "models"


class Options(msgspec.Struct, frozen=True):
    """How a peer was told to serve."""

    model: str
    port: int
    batch: int
    replicas: int
    threads: int


def options() -> Options:
    """Reads the peer's variables.

    Raises:
        KeyError: one is missing.
    """
    return Options(
        model=os.environ["BENCH_MODEL"],
        port=int(os.environ["BENCH_PORT"]),
        batch=int(os.environ["BENCH_BATCH"]),
        replicas=int(os.environ["BENCH_REPLICAS"]),
        threads=int(os.environ["BENCH_THREADS"]),
    )


class Model:
    """One loaded copy of the model."""

    def __init__(self, chosen: Options) -> None:
        """Loads and warms it up.

        Raises:
            InferstackError: the model folder is not valid or the model does not load.
        """
        settings = config.load(model_path=REPOSITORY, batch_size=chosen.batch)
        entry = repository.find(repository.scan(REPOSITORY, settings), chosen.model, 1)
        self._engine = base.create(entry, settings, "cpu")
        if chosen.model != "echo":
            import torch

            torch.set_num_threads(chosen.threads)
        self._engine.warm_up(CostFit())

    def predict(self, inputs: list[Any]) -> list[Any]:
        """One output for each input, in order.

        Raises:
            InferstackError: an input is not valid; the benchmark sends none that is not.
        """
        values = []
        for prepared in self._engine.prepare(inputs):
            if isinstance(prepared, InferstackError):
                raise prepared
            values.append(prepared.value)
        return self._engine.predict(values)


def dump(output: Any) -> bytes:
    """An output as the JSON body that every peer answers with."""
    return orjson.dumps({"result": output}, option=orjson.OPT_SERIALIZE_NUMPY)
