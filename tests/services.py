"""Throwaway PostgreSQL, Redis and S3 servers for tests: real programs, as in production.

Each server keeps its data in a temporary folder and listens on a random port of the
loopback address. It ends with the process that started it, however that ends.
"""

import contextlib
import ctypes
import functools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import psycopg
import redis

from inferstack.local import binaries
from inferstack.local.place import system_account
from inferstack.local.program import Account, run_as
from tests.programs import ServiceMissingError, program

START_TIMEOUT = 30.0
PR_SET_PDEATHSIG = 1
TEMPLATES: list[Path] = []


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now.

    It is below those that systems give to outgoing connections, one of which could take it while a
    server that a test has killed starts again, and above those that Ray gives to its workers.
    """
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 32_768)))
            return int(probe.getsockname()[1])


def end_with_parent(how: signal.Signals) -> Callable[[], object] | None:
    """For `preexec_fn`: Linux sends the child a signal when the thread that started it ends.

    A test run that is killed must not leave servers behind.
    """
    if sys.platform != "linux":
        return None
    prctl: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, how)


class _Server:
    """A child process with a data folder of its own."""

    name = "server"

    def __init__(self) -> None:
        """Makes the data folder; nothing runs before `start`."""
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix=f"inferstack-test-{self.name}-"))
        self.env: dict[str, str] = {}
        """On top of that of the tests."""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts the server."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        """Ends the server and removes its data."""
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self.process is not None, "the server is not running"
        return self.process.pid

    def start(self) -> Self:
        """Starts the server on its data and waits until it answers; also after `kill`.

        Raises:
            ServiceMissingError: it ended or did not answer in time; holds the end of its log.
        """
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                env=os.environ | self.env,
                **run_as(self._owner()),
                preexec_fn=end_with_parent(signal.SIGKILL),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServiceMissingError(f"{self.name} did not start:\n{self._log_end()}")
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        """Kills the server as a crash would (SIGKILL); its data stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the server in order; its data stay."""
        self._end(signal.SIGINT)

    def close(self) -> None:
        """Ends the server and removes its data."""
        self._end(signal.SIGINT)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log(self) -> Path:
        """What the server wrote to stdout and stderr."""
        return self.directory / "server.log"

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def _owner(self) -> Account | None:
        return None

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        raise NotImplementedError


class RedisServer(_Server):
    """A Redis or Valkey server that syncs every write to disk."""

    name = "redis"

    @property
    def url(self) -> str:
        """`redis://` URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "repl-diskless-sync-delay": "0",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(binaries.redis_server()), *flags]

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class S3Server(_Server):
    """A real S3 server in front of a folder."""

    name = "s3"
    access, secret = "access", "a-long-enough-secret"

    def __init__(self, *buckets: str) -> None:
        """Args: buckets: to make; `inferstack` if none is named."""
        super().__init__()
        self._buckets = buckets or ("inferstack",)

    def start(self) -> Self:
        """Makes the buckets that are not there yet, then starts the server.

        Raises:
            ServiceMissingError: it ended or did not answer in time; holds the end of its log.
        """
        for name in self._buckets:
            (self.bucket.parent / name).mkdir(parents=True, exist_ok=True)
        return super().start()

    @property
    def url(self) -> str:
        """For S3_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def bucket(self) -> Path:
        """Where the objects of the bucket `inferstack` lie, each a file."""
        return self.directory / "data" / "inferstack"

    def _command(self) -> list[str]:
        command = [program("rclone"), "serve", "s3", "--auth-key", f"{self.access},{self.secret}"]
        command += ["--addr", f"127.0.0.1:{self.port}", "--config", str(self.directory / "none")]
        return [*command, str(self.bucket.parent)]

    def _answers(self) -> bool:
        try:
            httpx.get(self.url, timeout=1, trust_env=False, verify=False)
        except httpx.TransportError:
            return False
        return True


@functools.cache
def _template(found: binaries.PostgresBinaries, owner: Account | None) -> Path:
    """A cluster as initdb makes it, which takes a second; `remove_templates` ends it."""
    folder = Path(tempfile.mkdtemp(prefix="inferstack-test-initdb-"))
    TEMPLATES.append(folder)
    password_file = folder / "password"
    password_file.write_text(PostgresServer.password)
    if owner is not None:
        for path in (folder, password_file):
            os.chown(path, owner.uid, owner.gid)
    command = [str(found.folder / "initdb"), f"--pgdata={folder / 'data'}", "--username=inferstack"]
    command += ["--auth=scram-sha-256", f"--pwfile={password_file}"]
    command += ["--encoding=UTF8", "--locale=C"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, check=False, **run_as(owner)
    )
    if done.returncode:
        raise ServiceMissingError(f"initdb failed:\n{done.stdout}{done.stderr}")
    return folder / "data"


def remove_templates() -> None:
    """Called when this process makes no more PostgreSQL servers."""
    while TEMPLATES:
        shutil.rmtree(TEMPLATES.pop(), ignore_errors=True)


class PostgresServer(_Server):
    """A PostgreSQL server with a password and fsync, run as an unprivileged user."""

    name = "postgres"
    password = secrets.token_urlsafe(12)
    """Of every server of this process: they begin as copies of one."""

    def __init__(self) -> None:
        """Makes the data folder; `start` fills it first."""
        super().__init__()
        self._binaries = binaries.postgres(None)

    @property
    def url(self) -> str:
        """`postgresql://` URL of the database `postgres`, as its superuser."""
        return f"postgresql://inferstack:{quote(self.password)}@127.0.0.1:{self.port}/postgres"

    @property
    def data(self) -> Path:
        """The data folder of PostgreSQL."""
        return self.directory / "data"

    def start(self) -> Self:
        """Makes the cluster when there is none yet, then starts the server.

        Raises:
            ServiceMissingError: initdb or the server failed; holds the end of its log.
        """
        if not self.data.exists():
            owner = self._owner()
            subprocess.run(["cp", "-a", _template(self._binaries, owner), self.data], check=True)
            if owner is not None:
                os.chown(self.directory, owner.uid, owner.gid)
        return super().start()

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on",
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries.server), "-D", str(self.data), *flags]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    def _owner(self) -> Account | None:
        """The user that runs the server: PostgreSQL refuses to run as root."""
        return system_account() if os.geteuid() == 0 else None


def create_database(server_url: str) -> str:
    """Makes an empty database with a name of its own and returns its URL.

    Args:
        server_url: URL of any database of the server, as a user who may make databases.
    """
    name = f"inferstack_test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


def drop_database(server_url: str, database_url: str) -> None:
    """Removes a database of `create_database`, ending the connections to it."""
    name = urlsplit(database_url).path.lstrip("/")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
