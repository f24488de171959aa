"""How each peer is started, in which configurations, and where it is asked."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import payloads
from benchmarks.client import Target
from benchmarks.processes import ROOT, Server, free_port
from inferstack.local import binaries


@dataclass(frozen=True)
class Variant:
    """How a peer uses the machine."""

    batch: int
    replicas: int
    threads: int

    def __str__(self) -> str:
        """For tables."""
        return f"batch {self.batch}, {self.replicas} x {self.threads} threads"


CORES = min(8, len(os.sched_getaffinity(0)))
"""Model replicas: as many as inferstack's `replicas: auto` starts."""

SPREAD = Variant(32, CORES, 1)
VARIANTS = (SPREAD, Variant(64, CORES, 1), Variant(32, 1, CORES), Variant(1, 1, CORES))
"""A replica on each core, as inferstack does; bigger batches; one replica on all cores; and the
libraries' own default of no batching."""


@dataclass(frozen=True)
class Peer:
    """A system that inferstack is measured against."""

    name: str
    command: Callable[[Path, int], list[str]]
    """From the peers' interpreter and a port to a command line."""
    models: tuple[str, ...] = ("echo", "minilm")
    path: str = "/infer"
    variants: tuple[Variant, ...] = VARIANTS
    extra: dict[str, str] = field(default_factory=dict)
    worker: Callable[[Path], list[str]] | None = None
    """A second process that takes work from a Redis."""

    @contextmanager
    def running(
        self, python: Path, model: str, kinds: list[str], variant: Variant, logs: Path
    ) -> Iterator[dict[str, Target]]:
        """Runs the peer; yields the target of each kind of payload once it answers.

        Args:
            python: the peers' interpreter.
            model: `echo` or `minilm`.
            kinds: the kinds of payload wanted.
            variant: how to use the machine.
            logs: folder for log files.

        Raises:
            StartError: it did not come up.
        """
        port = free_port()
        environment = _environment(model, port, variant) | self.extra
        with ExitStack() as stack:
            if self.worker is not None:
                environment["BENCH_REDIS"] = stack.enter_context(plain_redis(logs))
                worker = Server(f"{self.name}-worker", self.worker(python), environment, logs)
                stack.enter_context(worker)
            server = Server(self.name, self.command(python, port), environment, logs)
            stack.enter_context(server)
            base = f"http://127.0.0.1:{port}"
            yield {kind: self._target(server, base, kind) for kind in kinds}

    def _target(self, server: Server, base: str, kind: str) -> Target:
        bodies = payloads.bodies(kind) if self.models else []
        answer = server.wait_for(base + self.path, bodies[0] if bodies else None)
        if bodies and self.path != "/submit":
            check(self.name, kind, answer)
        return Target(self.name, base + self.path, bodies)


def check(name: str, kind: str, answer: bytes) -> None:
    """Makes sure that a system really computes.

    Raises:
        RuntimeError: the answer is not the model's output.
    """
    result = json.loads(answer)["result"]
    good = "text" in result if kind == "echo" else len(result["embedding"]) == 384
    if not good:
        raise RuntimeError(f"{name} answered {answer[:200]!r}")


def _environment(model: str, port: int, variant: Variant) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(variant.threads),
        "BENCH_MODEL": model,
        "BENCH_PORT": str(port),
        "BENCH_BATCH": str(variant.batch),
        "BENCH_REPLICAS": str(variant.replicas),
        "BENCH_THREADS": str(variant.threads),
    }


@contextmanager
def plain_redis(logs: Path) -> Iterator[str]:
    """A Redis that keeps nothing on disk, the fastest for Celery; yields its URL."""
    port = free_port()
    program = binaries.redis_server()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(logs)]
    with Server("celery-redis", command, binaries.redis_preload(program), logs):
        yield f"redis://127.0.0.1:{port}/0"


def _uvicorn(python: Path, app: str, port: int) -> list[str]:
    quiet = ["--log-level", "error", "--no-access-log"]
    return [str(python), "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), *quiet]


def _granian(python: Path, app: str, port: int) -> list[str]:
    quiet = ["--log-level", "error", "--interface", "asgi", "--loop", "uvloop", "--no-ws"]
    granian = str(python.with_name("granian"))
    return [granian, "--host", "127.0.0.1", "--port", str(port), *quiet, app]


def _mosec(python: Path, port: int) -> list[str]:
    listen = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    limits = ["--timeout", "60000", "--capacity", "4096"]
    return [str(python), "-m", "benchmarks.peers.mosec_server", *listen, *limits]


def _module(name: str) -> Callable[[Path, int], list[str]]:
    return lambda python, _: [str(python), "-m", f"benchmarks.peers.{name}"]


def _celery_worker(python: Path) -> list[str]:
    command = [str(python), "-m", "celery", "-A", "benchmarks.peers.celery_tasks", "worker"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR"]
    return [*command, "--concurrency", str(CORES), *quiet]


def _celery(name: str, path: str) -> Peer:
    return Peer(
        name,
        lambda python, port: _uvicorn(python, "benchmarks.peers.celery_api:app", port),
        models=("echo",),
        path=path,
        variants=(SPREAD,),
        worker=_celery_worker,
    )


EMPTY = "benchmarks.peers.fastapi_empty:app"
RAY = {"RAY_USAGE_STATS_ENABLED": "0"}
HAPROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}

FLOORS = (
    Peer("fastapi-uvicorn", lambda py, port: _uvicorn(py, EMPTY, port), (), "/", (SPREAD,)),
    Peer("fastapi-granian", lambda py, port: _granian(py, EMPTY, port), (), "/", (SPREAD,)),
)
PEERS = (
    Peer("mosec", _mosec),
    Peer("litserve", _module("litserve_server")),
    _celery("celery-submit", "/submit"),
    _celery("celery-wait", "/infer"),
    Peer("ray", _module("ray_server"), variants=VARIANTS[:3], extra=RAY),
    Peer("ray-haproxy", _module("ray_server"), variants=VARIANTS[:2], extra=RAY | HAPROXY),
)
