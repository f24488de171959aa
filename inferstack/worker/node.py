"""One machine of a Ray cluster: `python -m inferstack.worker.node`. Imports no Ray.

A machine joins the cluster at RAY_ADDRESS and lends it its cores and GPUs; on SIGTERM it gives its
replicas away before it leaves. With `--head` it is the first machine: it runs the cluster's own
services, takes no replicas, and starts `worker.serve`, which places them on the others; on SIGTERM
all replicas drain.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from inferstack import config
from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.telemetry import logs, pulse
from inferstack.telemetry.exposure import shown
from inferstack.worker import drain, gpu, measures, ray_settings, ray_token

log = logging.getLogger(__name__)

DASHBOARD_PORT = 8265
CLIENT_PORT = 10000
"""Of Ray's server for remote drivers, which nobody needs: RAY_ADDRESS often has its usual port."""
OBJECT_STORE = 80 * 1024 * 1024
"""Bytes. Work does not pass through Ray's object store."""
DRAIN_VARIABLE = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
KILL = 15.0
"""Seconds beyond the drain until what still runs is killed."""
MISSED = 3
"""Looks for the head in vain after which it counts as gone."""
RETRY = 1.0
"""Seconds between two looks for the head, or for a free GPU."""


LABEL = r"[\w-]{1,63}"
HOST = re.compile(rf"{LABEL}(\.{LABEL})*\.?|\[?[0-9a-f]*:[0-9a-f:.]*(%\w+)?\]?", re.ASCII | re.I)
"""A name, or an address of either family."""


class Node:
    """Runs the programs of one machine until a signal, or until one of them ends."""

    def __init__(self, settings: Settings, options: argparse.Namespace) -> None:
        """Starts nothing yet.

        Raises:
            ConfigurationError: RAY_ADDRESS is not host:port, or a head has no RAY_AUTH_TOKEN.
        """
        self._settings = settings
        self._head: bool = options.head
        self._gpu_locks: Path | None = options.gpu_locks
        self._ray: str | None = options.ray
        self._own_address: str = options.node_ip_address
        self._host, self._port = _address(settings)
        if self._head and self._ray is None and settings.ray_auth_token is None:
            raise ConfigurationError(
                "RAY_AUTH_TOKEN is not set, so anybody who reaches this machine could run code on "
                "the whole cluster: it takes a secret that all its machines share"
            )
        self._children: list[tuple[str, asyncio.subprocess.Process]] = []
        self._stopping = asyncio.Event()
        self._lock: TextIO | None = None
        self._drain = drain.of_host(settings)
        self._lent: tuple[str, ...] | None = () if self._head or self._gpu_locks else None
        """The GPUs that this machine lends, as `gpu.visible` has them; None for all."""

    async def run(self) -> int:
        """Returns the exit code: 0 after a signal, 1 if a program ended by itself."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with (
            pulse.beating("node", self._settings.inferstack_home) as own,
            shown("worker", self._metrics, self._settings),
        ):
            try:
                await (self._start_head() if self._head else self._start_member())
                own.ready()
                return await self._watch()
            finally:
                await self._end()

    def _metrics(self) -> bytes:
        return measures.of_devices(self._lent)

    async def _start_head(self) -> None:
        # Nothing drains here: `serve` has done it before Ray is told to end.
        await self._spawn("ray", self.ray_command(), {DRAIN_VARIABLE: "0"})
        await self._reachable()
        if not self._stopping.is_set():
            await self._spawn("serve", [sys.executable, "-P", "-m", "inferstack.worker.serve"], {})

    async def _start_member(self) -> None:
        """Starts Ray once the head answers.

        Raises:
            ConfigurationError: the head refuses RAY_AUTH_TOKEN.
        """
        await self._reachable()
        await asyncio.to_thread(ray_token.check, self._settings)
        own = {DRAIN_VARIABLE: f"{self._drain:.0f}"}
        options: list[str] = []
        if self._gpu_locks is None:
            lent = gpu.visible()
        else:
            number = await self.claim(self._gpu_locks)
            lent = [] if number is None else [number]
        # Ray would find by itself also those that are lost, or that another container has.
        if lent or self._gpu_locks is not None:
            own |= gpu.environment(lent)
            options = [f"--num-gpus={len(lent)}"]
        if not self._stopping.is_set():
            await self._spawn("ray", self.ray_command(*options), own)

    def ray_command(self, *options: str) -> list[str]:
        """The command of Ray's own processes on this machine."""
        if self._ray is not None:
            return shlex.split(self._ray)
        ray = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            "--block",
            "--disable-usage-stats",
        ]
        ray.append(f"--object-store-memory={OBJECT_STORE}")
        if self._own_address:
            ray.append(f"--node-ip-address={self._own_address}")
        if not self._head:
            return [*ray, f"--address={self._host}:{self._port}", *options]
        # Replicas belong to machines that can come and go, and this one cannot.
        own = ["--head", "--num-cpus=0", "--num-gpus=0", f"--port={self._port}"]
        own.append(f"--ray-client-server-port={CLIENT_PORT}")
        return [*ray, *own, "--dashboard-host=0.0.0.0", f"--dashboard-port={DASHBOARD_PORT}"]

    async def _reachable(self) -> None:
        """Waits until the head answers, or a signal comes, or a child ends."""
        told = False
        while not self._stopping.is_set() and not self._ended() and not await self._answers():
            if not told:
                log.warning("waiting for Ray at %s:%d (RAY_ADDRESS)", self._host, self._port)
            told = True
            await self._pause()

    async def _gone(self) -> None:
        """Returns once the head has not answered for a while."""
        missed = 0
        while missed < MISSED:
            missed = 0 if await self._answers() else missed + 1
            await asyncio.sleep(RETRY)

    async def _answers(self) -> bool:
        try:
            connecting = asyncio.open_connection(self._host, self._port)
            _, writer = await asyncio.wait_for(connecting, RETRY)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    async def claim(self, folder: Path) -> str | None:
        """A GPU that no other container of this machine has; None if it has no GPU at all.

        Docker gives every container of a service the same GPUs. The locks go with the process.
        """
        numbers, told = gpu.visible(), False
        if not numbers:
            log.warning("this machine shows no GPU: it lends its cores only")
            return None
        while not self._stopping.is_set():
            for number in numbers:
                self._lock = _lock(folder / f"gpu-{number}")
                if self._lock is not None:
                    self._lent = (number,)
                    log.info("took GPU %s of %d", number, len(numbers))
                    return number
            if not told:
                log.warning("all %d GPUs of this machine are taken: waiting for one", len(numbers))
            told = True
            await self._pause()
        return None

    def release(self) -> None:
        """Lets another container have the GPU."""
        if self._lock is not None:
            self._lock.close()
            self._lock, self._lent = None, ()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), RETRY)

    async def _spawn(self, name: str, command: Sequence[str], own: dict[str, str]) -> None:
        environment = {
            **config.as_environment(self._settings),
            **ray_settings.environment(self._settings),
            **own,
        }
        # A session of its own: a signal to the whole group is for us to pass on, in order.
        child = await asyncio.create_subprocess_exec(
            *command, env=environment, start_new_session=True
        )
        self._children.append((name, child))

    async def _watch(self) -> int:
        ends = [self._stopping.wait(), *(child.wait() for _, child in self._children)]
        waits = [asyncio.ensure_future(end) for end in ends]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._stopping.is_set():
            return 0
        for name in self._ended():
            log.error("%s has ended, and this machine with it", name)
        return 1

    def _ended(self) -> list[str]:
        return [name for name, child in self._children if child.returncode is not None]

    async def _end(self) -> None:
        """Ends the children, the youngest first: `serve` drains the replicas while Ray runs."""
        for name, child in reversed(self._children):
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(child.wait())]
            if not self._head:
                # Without it there is nobody to give replicas to; Ray would go on trying.
                waits.append(asyncio.ensure_future(self._gone()))
            patience = self._drain + KILL
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if child.returncode is None:
                log.warning("%s is killed: the head is gone, or it took too long", name)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        self.release()


def _lock(path: Path) -> TextIO | None:
    """The file, locked; None if another process has it."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _address(settings: Settings) -> tuple[str, int]:
    host, _, port = (settings.ray_address or "").rpartition(":")
    if not HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"RAY_ADDRESS={settings.ray_address or ''}: it takes host:port of the cluster's head"
        )
    return host, int(port)


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inferstack.worker.node", description=__doc__)
    parser.add_argument("--head", action="store_true", help="be the first machine of the cluster")
    parser.add_argument(
        "--gpu-locks",
        type=Path,
        metavar="FOLDER",
        help="lend one GPU that no other container has; they tell by locks in this folder",
    )
    parser.add_argument(
        "--node-ip-address",
        default="",
        metavar="ADDRESS",
        help="where the other machines reach this one; Ray looks for it if this is empty",
    )
    parser.add_argument(
        "--ray", metavar="COMMAND", help="start Ray with this command, as an operator made it up"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Runs this machine; returns the exit code."""
    options = _options()
    try:
        settings = config.settings()
        logs.setup("node", level=settings.log_level, style=settings.log_format)
        return asyncio.run(Node(settings, options).run())
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
