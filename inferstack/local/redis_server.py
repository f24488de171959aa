"""Redis or Valkey as a child: every acknowledged write is on disk."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM

import psutil

from inferstack.local import binaries
from inferstack.local.home import write_private
from inferstack.local.program import PLAIN_ENVIRONMENT, Program

NAMES = ("redis-server", "valkey-server")
CGROUP_MEMORY = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Bytes that the container may use, by cgroups v2 and v1."""


def program(binary: Path, folder: Path, port: int, password: str) -> Program:
    """Writes the configuration and says how to run the server with it.

    Args:
        binary: the server.
        folder: where its data lies.
        port: the port on the loopback address.
        password: what clients must give; it stands in a private file, not on the command line.
    """
    config = folder / "redis.conf"
    write_private(config, _configuration(folder, port, password).encode())
    return Program(
        name="redis",
        command=(str(binary), str(config)),
        environment=PLAIN_ENVIRONMENT | binaries.redis_preload(binary),
        ready=lambda: answers(port, password),
        # It replays its log first, which takes a while after millions of tasks.
        ready_within=300.0,
        stop=((SIGTERM, 20.0),),
        port=port,
    )


def reader(binary: Path, snapshot: Path, folder: Path, port: int, password: str) -> Program:
    """Says how to run a server that only reads a snapshot.

    Args:
        binary: the server; it must know the format of the one that made the snapshot.
        snapshot: a file as `dump.rdb`; nothing is written beside it.
        folder: for the configuration.
        port: the port on the loopback address.
        password: what clients must give.
    """
    config = folder / "reader.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{snapshot.absolute().parent}"',
        f"dbfilename {snapshot.name}",
        # The other server may have had more than the usual 16.
        "databases 1024",
        "daemonize no",
        'logfile ""',
        # With a log of its own it would start empty: that log is all that it would read.
        "appendonly no",
        'save ""',
        "",
    ]
    write_private(config, "\n".join(lines).encode())
    return Program(
        name="reader",
        command=(str(binary), str(config)),
        environment=PLAIN_ENVIRONMENT,
        ready=lambda: answers(port, password),
        ready_within=3600.0,
        stop=((SIGTERM, 20.0),),
        port=port,
    )


def url(port: int, password: str, database: int = 0) -> str:
    """The REDIS_URL of the server."""
    return f"redis://:{password}@127.0.0.1:{port}/{database}"


def pid_file(folder: Path) -> Path:
    """Where the server writes its process id."""
    return folder / "redis.pid"


def memory(limits: Sequence[Path] = CGROUP_MEMORY) -> int:
    """Bytes of memory that this machine has, or this container if it may use less."""
    least = psutil.virtual_memory().total
    for limit in limits:
        # No such cgroup, or no limit: version 2 says "max", version 1 an enormous number.
        with contextlib.suppress(OSError, ValueError):
            least = min(least, int(limit.read_text()))
    return least


async def answers(port: int, password: str) -> bool:
    """Whether the server has loaded its data and takes commands."""
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                lines = [await reader.readline(), await reader.readline()]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return lines == [b"+OK\r\n", b"+PONG\r\n"]


def _configuration(folder: Path, port: int, password: str) -> str:
    return "\n".join(
        [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{folder}"',
            f'pidfile "{pid_file(folder)}"',
            "daemonize no",
            'logfile ""',
            # A 202 means: on disk. Snapshots would add nothing to that.
            "appendonly yes",
            "appendfsync always",
            'save ""',
            "maxmemory-policy noeviction",
            # Under load the log grows by tens of megabytes a second: rewrite it less often.
            "auto-aof-rewrite-min-size 256mb",
            # A backup reads a snapshot as a replica would; no second one comes to share it.
            "repl-diskless-sync yes",
            "repl-diskless-sync-delay 0",
            "repl-backlog-ttl 1",
            # A task's hash stays one allocation instead of becoming a table.
            "hash-max-listpack-value 1024",
            # A few dozen tasks in a list would be compared one by one, their scores as text.
            "zset-max-listpack-entries 0",
            "latency-tracking no",
            # Work is refused at half of the memory, before the kernel kills somebody.
            f"maxmemory {memory() // 2}",
            "tcp-keepalive 60",
            "",
        ]
    )
