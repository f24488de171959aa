"""All replicas of this machine as plain processes: `python -m inferstack.worker.pool`."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from inferstack import config, refusal
from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.engines.repository import ModelEntry, scan
from inferstack.errors import InferstackError
from inferstack.queue.connection import connect
from inferstack.telemetry import logs, pulse
from inferstack.telemetry.exposure import shown
from inferstack.worker import drain, gpu, measures
from inferstack.worker.early import EarlyOutput
from inferstack.worker.host import redis_url, services_arrived
from inferstack.worker.placement import Placement, default_first, place
from inferstack.worker.registrar import MOST_EARLY_DEATHS, Registrar

log = logging.getLogger(__name__)

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Replicas download nothing."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a replica that ended is started again; doubles while it keeps ending."""
SETTLED = 30.0
"""Seconds after which a replica counts as having started well."""
CANNOT_START = 127
"""The status of a replica that never ran, as shells have it."""


class ReplicaPlan(NamedTuple):
    """One process to keep running."""

    entry: ModelEntry
    device: str
    environment: Mapping[str, str] = {}
    """Of its process only."""

    @property
    def command(self) -> list[str]:
        """How to start it."""
        module = [sys.executable, "-P", "-m", "inferstack.worker.process"]
        model = ["--model", self.entry.model, "--version", str(self.entry.version)]
        return [*module, *model, "--device", self.device, f"--with-parent={os.getpid()}"]


class Ended(NamedTuple):
    """How a replica process ended."""

    code: int
    ready: bool
    """Whether it had become ready before."""
    last_line: str
    """Of its stderr, from the time before it was ready."""

    @property
    def how(self) -> str:
        """For people."""
        if self.code < 0:
            return f"was killed by {signal.Signals(-self.code).name}"
        return f"ended with status {self.code}"


def plans(
    entries: Sequence[ModelEntry], placements: Mapping[str, Placement], gpus: Sequence[str]
) -> list[ReplicaPlan]:
    """The processes of this machine; of a range of replicas, the least.

    Args:
        entries: models to serve.
        placements: where each belongs, by its name.
        gpus: the GPUs of this machine, from `gpu.visible`.
    """
    found = []
    for entry in entries:
        if entry.name not in placements:
            continue
        placement = placements[entry.name]
        if placement.num_gpus:
            # As Ray does it: a replica sees its own GPUs only, and numbers them from 0.
            own = [[gpus[index] for index in indices] for indices in placement.gpus]
            sees = [gpu.environment(ids) for ids in own[: placement.minimum]]
        else:
            sees = [gpu.environment(gpus) if gpus else {}] * placement.minimum
        found += [ReplicaPlan(entry, placement.device, environment) for environment in sees]
    return found


class Pool:
    """Starts replicas, and starts those again that end."""

    def __init__(
        self,
        replicas: Sequence[ReplicaPlan],
        environment: Mapping[str, str],
        report: Callable[[str, str], object],
        grace: float,
    ) -> None:
        """Starts nothing.

        Args:
            replicas: those that start at once.
            environment: of the children.
            report: told the name of a deployment whose replicas keep ending before they are
                ready, and how they end.
            grace: seconds that replicas get to drain before they are killed.
        """
        self._replicas = replicas
        self._environment = {**environment, **OFFLINE}
        self._report = report
        self._grace = grace
        self.stopping = asyncio.Event()
        """Set once it has been told to end."""
        self._children: set[asyncio.subprocess.Process] = set()

    async def run(
        self, later: Sequence[ReplicaPlan] = (), when: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Runs until `stop`; returns once every replica has ended.

        Args:
            later: replicas that start when `when` returns.
            when: awaited before that.
        """
        async with asyncio.TaskGroup() as group:

            async def start_later() -> None:
                if when is not None:
                    await when()
                for replica in later:
                    group.create_task(self._keep(replica))

            for replica in self._replicas:
                group.create_task(self._keep(replica))
            starting = group.create_task(start_later())
            await self.stopping.wait()
            starting.cancel()
            await self._end()

    def stop(self) -> None:
        """Has every replica drained."""
        self.stopping.set()

    async def _keep(self, replica: ReplicaPlan) -> None:
        pause, deaths = FIRST_PAUSE, 0
        while not self.stopping.is_set():
            started = time.monotonic()
            ended = await self._run(replica)
            if self.stopping.is_set():
                return
            if ended.ready and time.monotonic() - started > SETTLED:
                pause = FIRST_PAUSE
            deaths = 0 if ended.ready else deaths + 1
            name = replica.entry.name
            log.warning("a replica of %s %s, again in %g s", name, ended.how, pause)
            if deaths >= MOST_EARLY_DEATHS:
                self._report(name, _reason(ended))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _run(self, replica: ReplicaPlan) -> Ended:
        """Runs a replica once, to its end."""
        try:
            early = EarlyOutput()
            try:
                code = await self._start_and_wait(replica, early)
            finally:
                early.finish()
        except (OSError, RuntimeError) as error:
            # Perhaps the system has no process, thread or file left just now: the other replicas
            # live on.
            why = getattr(error, "strerror", None) or error
            return Ended(CANNOT_START, False, f"it cannot be started: {why}")
        return Ended(code, early.ready, early.last_line)

    async def _start_and_wait(self, replica: ReplicaPlan, early: EarlyOutput) -> int:
        """Its exit status.

        Raises:
            OSError: the system starts no process, or opens no file.
            RuntimeError: it starts no thread.
        """
        with contextlib.ExitStack() as ours:
            ours.callback(early.close_write_end)
            stderr = os.dup(sys.stderr.fileno())
            ours.callback(os.close, stderr)
            child = await asyncio.create_subprocess_exec(
                *replica.command,
                f"--stderr={stderr}",
                env={**self._environment, **replica.environment},
                stderr=early.write_end,
                pass_fds=(stderr,),
            )
        self._children.add(child)
        if self.stopping.is_set():
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                child.terminate()
        code = await child.wait()
        self._children.discard(child)
        return code

    async def _end(self) -> None:
        children = list(self._children)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        if children:
            ends = [asyncio.create_task(child.wait()) for child in children]
            await asyncio.wait(ends, timeout=self._grace)
        for child in children:
            if child.returncode is None:
                log.warning("process %d did not drain in time", child.pid)
                child.kill()


def _reason(ended: Ended) -> str:
    said = f": {ended.last_line}" if ended.last_line else ""
    again = f"it is tried again every {LONGEST_PAUSE:g} s"
    return f"its replica {ended.how} before it was ready{said} ({again})"


async def serve(settings: Settings) -> None:
    """Keeps every deployment running and registered until SIGTERM or SIGINT.

    Raises:
        InferstackError: MODEL_PATH or REDIS_URL are not usable, or a service refuses the
            credentials.
    """
    entries = scan(settings.model_path, settings)
    redis = connect(redis_url(settings))
    registrar = Registrar(redis, entries, settings)
    gpus, (first, rest) = gpu.visible(), default_first(entries, settings)
    placements = place([*first, *rest], [len(gpus)], gpu.cores(), scaling=False)
    for name, placement in placements.items():
        if placement.shortage is not None:
            log.warning("%s: %s", name, placement.shortage)
        if placement.stranded:
            registrar.failed(name, str(placement.shortage))
    replicas = plans(first, placements, gpus)
    environment, grace = config.as_environment(settings), drain.of_replicas(entries)
    pool = Pool(replicas, environment, registrar.failed, grace)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pool.stop)
    registering: asyncio.Task[None] | None = None
    try:
        async with (
            pulse.beating("worker", settings.inferstack_home) as own,
            shown("worker", measures.of_devices, settings),
        ):
            if await services_arrived(settings, pool.stopping):
                own.ready()
                registering = asyncio.create_task(registrar.run())
                await pool.run(plans(rest, placements, gpus), registrar.default_settled)
    finally:
        await end(registering)
        await redis.aclose()


def main() -> int:
    """Runs the pool; returns the exit code."""
    try:
        settings = config.settings_with("redis_url")
        logs.setup("worker", level=settings.log_level, style=settings.log_format)
        asyncio.run(serve(settings))
    except InferstackError as error:
        refusal.end(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
