"""Machines of a Ray cluster, all on this one, and what they serve."""

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from redis.asyncio import Redis

from inferstack.config import Settings, as_environment
from inferstack.deployment import ReplicaStatus
from inferstack.queue.registry import Registry
from inferstack.telemetry import peers
from inferstack.worker import node
from tests.services import free_port

PATIENCE = 150.0


class Machines:
    """Programs that pretend to be a machine each."""

    def __init__(self, settings: Settings, temporary: Path, logs: Path) -> None:
        self._settings = settings
        self._temporary = temporary
        self._logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *ray: str, head: bool = False) -> subprocess.Popen[bytes]:
        """Adds to Ray's command what real machines do not share: ports, folders and cores."""
        options = ["--head"] if head else []
        own = self._settings.model_copy(update={"inferstack_home": self._logs / name})
        command = [*node.Node(own, node._options(options)).ray_command(), *ray]
        with (self._logs / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "inferstack.worker.node", *options),
                    *("--ray", shlex.join([*command, "--node-ip-address=127.0.0.1"])),
                ],
                env=as_environment(own),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self.running[name]

    def head(self) -> subprocess.Popen[bytes]:
        client = f"--ray-client-server-port={free_port()}"
        return self.start(
            *("head", client, "--include-dashboard=false", f"--temp-dir={self._temporary}"),
            head=True,
        )

    def member(self, name: str) -> subprocess.Popen[bytes]:
        return self.start(name, "--num-cpus=1")

    def log(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text()


@contextmanager
def machines(settings: Settings, temporary: Path, logs: Path) -> Iterator[Machines]:
    """None yet; kills those that were started, with all that runs on them.

    Args:
        settings: of all of them.
        temporary: a folder with a path that is short enough for Ray's sockets.
        logs: a folder.
    """
    found = Machines(settings, temporary, logs)
    try:
        yield found
    finally:
        for name, process in reversed(found.running.items()):
            if process.poll() is None:
                kill(process)
            peers.sweep(logs / name)
            print(name, found.log(name)[-3000:])


def kill(machine: "subprocess.Popen[bytes]") -> None:
    """Ends all that runs on a machine, as a loss of power does."""
    programs = psutil.Process(machine.pid).children(recursive=True)
    machine.kill()
    for program in programs:
        if program.is_running():
            program.kill()
    machine.wait()


async def replicas(redis: Redis, deployment: str, count: int) -> list[ReplicaStatus]:
    """Those that serve, once there are so many."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await Registry(redis).replicas(deployment)
            if len(found) == count and all(replica.state == "ready" for replica in found):
                return found
            await asyncio.sleep(0.1)
