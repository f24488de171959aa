"""A snapshot of a whole Redis, taken over the network while it serves.

Redis is asked as a replica asks it: it forks, and sends its data as they were at that moment. This
needs neither the files of the server nor its tools, so it works wherever REDIS_URL points, unless
SYNC is forbidden there, as in some hosted services.
"""

import re
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from inferstack.errors import BackupError
from inferstack.queue.connection import translated

PATIENCE = 120.0
"""Seconds of silence after which the server is given up; while it prepares, it sends newlines."""
CHUNK = 1 << 16


class Snapshot(NamedTuple):
    """Where a snapshot comes from."""

    server: str
    """Name and version, such as `Valkey 9.1.2`."""
    database: int
    """The number of the database that REDIS_URL names; a snapshot holds all of them."""
    taken_ms: int
    """Just before it was taken, by the clock of Redis."""


def fetch(url: str, target: Path) -> Snapshot:
    """Writes a snapshot to a file, in the format of `dump.rdb`.

    Every write that was acknowledged before the call is in it.

    Raises:
        BackupError: the server does not hand it out, or broke off.
        QueueUnavailableError: Redis does not answer.
        OSError: the file cannot be written.
    """
    connection = _connection(url)
    try:
        with translated():
            connection.connect()
            server = _version(_ask(connection, "INFO", "server").decode())
            seconds, micros = map(int, _ask(connection, "TIME"))
        with target.open("xb") as file:
            for piece in _pieces(connection):
                file.write(piece)
    finally:
        connection.disconnect()
    return Snapshot(server, int(connection.db or 0), seconds * 1000 + micros // 1000)


def _connection(url: str) -> Any:
    """A connection with the host, the password and the TLS of a URL; redis-py types it poorly."""
    pool = ConnectionPool.from_url(
        url,
        socket_timeout=PATIENCE,
        socket_connect_timeout=5.0,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )
    return pool.make_connection()


def _ask(connection: Any, *command: str) -> Any:
    connection.send_command(*command)
    return connection.read_response()


def _pieces(connection: Any) -> Iterator[bytes]:
    """What the server sends between the header and the end that it names."""
    with translated():
        # It may send while it reads its memory, and needs no file of its own in between.
        for option in (("capa", "eof"), ("rdb-only", "1")):
            try:
                _ask(connection, "REPLCONF", *option)
            except ResponseError:
                continue  # An older server does without.
        connection.send_command("SYNC")
        stream = connection._sock.makefile("rb")
        header = b"\n"
        while header == b"\n":
            header = stream.readline()
        if not header.startswith(b"$"):
            said = header.decode(errors="replace").strip().lstrip("-") or "it hung up"
            raise BackupError(f"Redis hands out no snapshot of itself: {said}")
        marked = header.startswith(b"$EOF:")
        yield from _until(stream, header[5:].strip()) if marked else _exactly(stream, header[1:])


def _until(stream: BufferedReader, mark: bytes) -> Iterator[bytes]:
    """Pieces up to a mark; the server waits after it, so nothing follows."""
    held = b""
    while not held.endswith(mark):
        chunk = stream.read1(CHUNK)
        _check(chunk)
        yield held[: -len(mark)]
        held = held[-len(mark) :] + chunk
    yield held[: -len(mark)]


def _exactly(stream: BufferedReader, size: bytes) -> Iterator[bytes]:
    left = int(size)
    while left:
        chunk = stream.read(min(left, CHUNK))
        _check(chunk)
        yield chunk
        left -= len(chunk)


def _check(chunk: bytes) -> None:
    if not chunk:
        raise BackupError("Redis broke off in the middle of its snapshot")


def _version(info: str) -> str:
    # Valkey says `redis_version` too, that of the Redis that it is compatible with.
    for name, field in (("Valkey", "valkey_version"), ("Redis", "redis_version")):
        if found := re.search(rf"^{field}:(\S+)", info, re.MULTILINE):
            return f"{name} {found[1]}"
    return "an unknown server"
