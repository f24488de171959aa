"""All replicas of this machine as plain processes: `python -m inferstack.worker.pool`."""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from inferstack import config
from inferstack.config import Settings
from inferstack.engines.repository import ModelEntry, scan
from inferstack.errors import InferstackError
from inferstack.queue.background import end
from inferstack.queue.connection import connect
from inferstack.telemetry import logs
from inferstack.worker import gpu, measures
from inferstack.worker.host import redis_url, report_failure
from inferstack.worker.placement import place
from inferstack.worker.registrar import Registrar

log = logging.getLogger(__name__)

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Replicas download nothing."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a replica that ended is started again; doubles while it keeps ending."""
GIVEN_UP = 3
"""Ends in a row, each soon after the start, from which on its deployment counts as failed."""
SETTLED = 30.0
"""Seconds after which a replica counts as having started well."""
DRAIN_GRACE = 50.0
"""Seconds that replicas get to drain before they are killed."""


class ReplicaPlan(NamedTuple):
    """One process to keep running."""

    entry: ModelEntry
    device: str

    @property
    def command(self) -> list[str]:
        """How to start it."""
        module = [sys.executable, "-P", "-m", "inferstack.worker.process", "--with-parent"]
        model = ["--model", self.entry.model, "--version", str(self.entry.version)]
        return [*module, *model, "--device", self.device]


def plans(entries: Sequence[ModelEntry], gpus: int, cores: int) -> list[ReplicaPlan]:
    """The processes of this machine; of a range of replicas, the least."""
    found = []
    for entry in entries:
        if entry.config is None:
            continue
        placement = place(entry.config, gpus, cores)
        for number in range(placement.minimum):
            device = placement.device
            if device == "cuda":
                device = f"cuda:{placement.gpu_index(number, gpus)}"
            found.append(ReplicaPlan(entry, device))
    return found


class Pool:
    """Starts replicas, and starts those again that end."""

    def __init__(
        self,
        replicas: Sequence[ReplicaPlan],
        environment: Mapping[str, str],
        report: Callable[[ModelEntry, str], Awaitable[None]],
    ) -> None:
        """Starts nothing yet.

        Args:
            replicas: the processes to keep running.
            environment: of the children.
            report: called with a model and the reason when its replicas do not stay alive.
        """
        self._replicas = replicas
        self._report = report
        self._environment = {**environment, **OFFLINE}
        self._stopping = asyncio.Event()
        self._children: set[asyncio.subprocess.Process] = set()

    async def run(self) -> None:
        """Runs until `stop`; returns once every replica has ended."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(self._keep(replica))
            await self._stopping.wait()
            await self._end()

    def stop(self) -> None:
        """Has every replica drained."""
        self._stopping.set()

    async def _keep(self, replica: ReplicaPlan) -> None:
        pause, ends = FIRST_PAUSE, 0
        while not self._stopping.is_set():
            started = time.monotonic()
            child = await asyncio.create_subprocess_exec(*replica.command, env=self._environment)
            self._children.add(child)
            if self._stopping.is_set():
                child.terminate()
            code = await child.wait()
            self._children.discard(child)
            if self._stopping.is_set():
                return
            if time.monotonic() - started > SETTLED:
                pause, ends = FIRST_PAUSE, 0
            ends += 1
            log.warning("%s ended with %s, again in %s s", replica.entry.name, code, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            # Each time: while the last heartbeat of the dead one still stands, nothing is noted.
            if ends >= GIVEN_UP and not self._stopping.is_set():
                reason = f"its replica ended {ends} times right after its start, with {code} last"
                await self._report(replica.entry, f"{reason}; the worker's log says why")

    async def _end(self) -> None:
        children = list(self._children)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        if children:
            ends = [asyncio.create_task(child.wait()) for child in children]
            await asyncio.wait(ends, timeout=DRAIN_GRACE)
        for child in children:
            if child.returncode is None:
                log.warning("process %d did not drain in time", child.pid)
                child.kill()


async def serve(settings: Settings) -> None:
    """Keeps every deployment running and registered until SIGTERM or SIGINT.

    Raises:
        InferstackError: MODEL_PATH or REDIS_URL are not usable.
    """
    entries = scan(settings.model_path, settings)
    redis = connect(redis_url(settings))
    found = plans(entries, len(gpu.gpus()), gpu.cores())
    pool = Pool(
        found,
        config.as_environment(settings),
        lambda entry, reason: report_failure(entry, settings, reason, keep=True),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pool.stop)
    registering = asyncio.create_task(Registrar(redis, entries, settings).run())
    try:
        async with measures.shown("worker", measures.of_devices, settings):
            await pool.run()
    finally:
        await end(registering)
        await redis.aclose()


def main() -> int:
    """Runs the pool; returns the exit code."""
    try:
        settings = config.settings()
        logs.setup("worker", level=settings.log_level, style=settings.log_format)
        asyncio.run(serve(settings))
    except InferstackError as error:
        print(error.detail, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
