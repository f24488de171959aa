"""One replica as a plain process: `python -m inferstack.worker.process --model M --version V`."""

import argparse
import asyncio
import logging
import os
import signal
import sys

from inferstack import config
from inferstack.errors import InferstackError
from inferstack.telemetry import logs
from inferstack.worker import host
from inferstack.worker.early import end_early_output
from inferstack.worker.loop import Worker

log = logging.getLogger(__name__)

EXIT_LOAD = 3
"""Exit code when the model cannot be loaded or served."""
ORPHAN_CHECK = 1.0


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    options = _options()
    try:
        settings = config.settings()
        logs.setup("replica", level=settings.log_level, style=settings.log_format)
        loaded = host.load(options.model, options.version, settings, options.device)
        if options.stderr is not None:
            end_early_output(options.stderr)
        asyncio.run(_serve(loaded, options.with_parent))
    except InferstackError as error:
        print(f"{options.model}:{options.version}: {error}", file=sys.stderr)
        return EXIT_LOAD
    return 0


async def _serve(loaded: host.LoadedModel, parent: int | None) -> None:
    loop = asyncio.get_running_loop()
    watches: list[asyncio.Task[None]] = []

    def made(worker: Worker) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.drain)
        if parent is not None:
            watches.append(asyncio.create_task(_end_with(parent, worker)))

    await loaded.serve(made)
    for watch in watches:
        watch.cancel()


async def _end_with(parent: int, worker: Worker) -> None:
    """Drains when the process that started this one is gone.

    Not under `inferstack up`, which ends both: the next pool's replicas need the device.
    """
    # Nothing tells a process that its parent ended: it has to look.
    while os.getppid() == parent:  # noqa: ASYNC110
        await asyncio.sleep(ORPHAN_CHECK)
    log.warning("the pool is gone")
    worker.drain()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inferstack.worker.process", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version", type=int, required=True)
    parser.add_argument("--device", help="cpu or cuda[:n]; what config.yaml says if left out")
    parser.add_argument(
        "--with-parent",
        type=int,
        metavar="PID",
        help="drain when this process, which is the parent, ends; also if it ended long ago",
    )
    parser.add_argument(
        "--stderr", type=int, help="file descriptor that takes over from stderr when it is ready"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
