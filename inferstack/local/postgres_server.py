"""PostgreSQL as a child: made once with a password, never run as root."""

import os
import shutil
import subprocess
from pathlib import Path
from signal import SIGINT, SIGQUIT

from inferstack.errors import StackError
from inferstack.local.binaries import PostgresBinaries
from inferstack.local.processes import server_at
from inferstack.local.program import PLAIN_ENVIRONMENT, Account, Program, run_as

NAMES = ("postgres",)
USER = "inferstack"
DATABASE = "inferstack"


def program(binaries: PostgresBinaries, data: Path, port: int, account: Account | None) -> Program:
    """Says how to run the server on data that `create` has made."""
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        # TCP only: the path of a socket in a deep home would be longer than the 107 bytes allowed.
        "unix_socket_directories": "",
        "max_connections": "200",
        "jit": "off",
    }
    return Program(
        name="postgres",
        command=(
            str(binaries.server),
            "-D",
            str(data),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ),
        environment=PLAIN_ENVIRONMENT,
        ready=lambda: _accepts(data),
        # It may have to replay its log after a crash.
        ready_within=300.0,
        # Fast shutdown, then immediate: SIGTERM would wait for clients to leave by themselves.
        stop=((SIGINT, 20.0), (SIGQUIT, 10.0)),
        account=account,
        port=port,
    )


def url(port: int, password: str) -> str:
    """The DATABASE_URL of the server."""
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"


def pid_file(data: Path) -> Path:
    """Where the server writes its process id."""
    return data / "postmaster.pid"


def major(data: Path) -> int | None:
    """The major version that made the data; None if there is none yet."""
    try:
        return int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def create(binaries: PostgresBinaries, data: Path, password: str, account: Account | None) -> None:
    """Makes the data folder with one superuser and one database; nothing if it exists.

    It is made beside its place and moved there in one step, so a half-made one is never used.

    Raises:
        StackError: `initdb` or the server failed; carries the last line that it wrote.
    """
    if data.exists():
        return
    fresh = data.with_name(f"{data.name}.new")
    secret = data.with_name(f"{data.name}.password")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _write_secret(secret, password, account)
        _run(
            [
                str(binaries.folder / "initdb"),
                *("-D", str(fresh), "-U", USER, "--auth=scram-sha-256"),
                *(f"--pwfile={secret}", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            ],
            account,
        )
    finally:
        secret.unlink(missing_ok=True)
    _run(
        [str(binaries.server), "--single", "-D", str(fresh), "postgres"],
        account,
        stdin=f"CREATE DATABASE {DATABASE}\n",
    )
    fresh.rename(data)


def _write_secret(path: Path, password: str, account: Account | None) -> None:
    # The folder is the account's: root must not follow a link that it finds there.
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(password + "\n")
        if account is not None:
            os.fchown(file.fileno(), account.uid, account.gid)


def _run(command: list[str], account: Account | None, stdin: str = "") -> None:
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=PLAIN_ENVIRONMENT,
        cwd="/",
        **run_as(account),
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no message"]
        raise StackError(f"PostgreSQL: {Path(command[0]).name} failed: {lines[-1]}")


async def _accepts(data: Path) -> bool:
    """Whether the server says in its pid file that it is ready, as `pg_ctl -w` reads it.

    After a power loss the file is that of the last run, and its id may be anybody's.
    """
    try:
        ready = pid_file(data).read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False
    return ready and server_at(pid_file(data), data, NAMES) is not None
