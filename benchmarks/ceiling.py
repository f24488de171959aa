"""Raw MiniLM in process: the ceiling that serving is compared with.

`python -m benchmarks.ceiling KIND BATCH PROCESSES THREADS SECONDS` prints sequences per second.
"""

import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import payloads
from benchmarks.processes import Server

BATCH = 64


def measure(place: Path, kind: str, processes: int, threads: int, seconds: float) -> float:
    """Runs this module in a process of its own; returns sequences per second.

    Args:
        place: folder for its log.
        kind: `same` or `mixed`; mixed texts are batched in the order they come.
        processes: copies of the model, each on its own share of the texts.
        threads: torch threads of each.
        seconds: for how long.
    """
    numbers = [str(value) for value in (BATCH, processes, threads, seconds)]
    command = [sys.executable, "-m", "benchmarks.ceiling", kind, *numbers]
    # Ended with its children, also when this program is.
    with Server(f"raw-{processes}x{threads}", command, {}, place) as server:
        server.process.wait(seconds + 120)
        return float(server.tail().split()[-1])


def _compute(
    kind: str, batch: int, threads: int, seconds: float, ready: Any, counts: Any, number: int
) -> None:
    from benchmarks.peers.model import Model, Options

    model = Model(Options("minilm", 0, batch, 1, threads))
    inputs = payloads.INPUTS[kind]()
    while len(inputs) < batch:
        inputs += inputs
    batches = [inputs[i : i + batch] for i in range(0, len(inputs) - batch + 1, batch)]
    model.predict(batches[0])
    ready.wait()
    started, done, at = time.perf_counter(), 0, number * len(batches) // 2
    while (taken := time.perf_counter() - started) < seconds:
        done += len(model.predict(batches[at % len(batches)]))
        at += 1
    counts[number] = done / taken


def main() -> None:
    """Measures as the command line says."""
    kind, (batch, processes, threads) = sys.argv[1], map(int, sys.argv[2:5])
    spawn = multiprocessing.get_context("spawn")
    ready, counts = spawn.Barrier(processes), spawn.Array("d", processes)
    seconds = float(sys.argv[5])
    workers = [
        spawn.Process(target=_compute, args=(kind, batch, threads, seconds, ready, counts, i))
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(sum(counts[:]))


if __name__ == "__main__":
    main()
