"""One scrape for all processes of a machine.

Where several share a port, the kernel hands a scrape to any one of them. So that one asks the
others over Unix sockets and adds the label `process` to every sample. prometheus-client's own
way, files in shared memory, leaks a file for each process that dies and has no process metrics.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds that a process may take to answer a scrape."""


def folder_for(home: Path, *, make: bool = True) -> Path:
    """The folder for the sockets of everything that runs in one INFERSTACK_HOME.

    It lies in the temporary folder, since the path of a socket may have 107 bytes only. Who ends
    as the last one removes it.

    Raises:
        PermissionError: it is not one that this user has made.
        FileNotFoundError: there is none, and it is not to be made.
    """
    folder = _folder(home)
    if make:
        folder.mkdir(mode=0o700, exist_ok=True)
    # Anybody can make things in the temporary folder, also a link to a folder of ours.
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} is not a folder of this user")
    return folder


def sweep(home: Path) -> None:
    """Removes what killed processes left, and the folder once it is empty."""
    folder = _folder(home)
    for beat in (*folder.glob("*.alive"), *folder.glob("*.ready")):
        # Whoever lives makes it again with the next beat.
        beat.unlink(missing_ok=True)
    for path in folder.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(str(path))
            except ConnectionRefusedError:
                _forget(path)
            except OSError:
                continue
    remove_empty(folder)


def remove_empty(folder: Path) -> None:
    """Removes the folder if nobody has anything in it any more."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _folder(home: Path) -> Path:
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"inferstack-{os.getuid()}-{digest}"


class Peers:
    """The processes of one home on this machine, this one among them."""

    def __init__(self, folder: Path, service: str, exposition: Callable[[], bytes]) -> None:
        """Listens to nothing yet.

        Args:
            folder: where the sockets are, one a process.
            service: such as `api`; with the process id the name of this process.
            exposition: the metrics of this process in Prometheus' text format.
        """
        self._folder = folder
        self._exposition = exposition
        self._path = folder / f"{service}-{os.getpid()}.sock"
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answers the others from now on."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, self._path)

    async def stop(self) -> None:
        """Answers no more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
            remove_empty(self._folder)

    async def gather(self) -> bytes:
        """The metrics of every process, each sample with the label `process`."""
        paths = sorted(path for path in self._folder.glob("*.sock") if path != self._path)
        texts = await asyncio.gather(*(self._ask(path) for path in paths))
        own = await asyncio.to_thread(self._exposition)
        found = [(self._path.stem, own)]
        found += [(p.stem, t) for p, t in zip(paths, texts, strict=True) if t]
        return await asyncio.to_thread(merge, found)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(await asyncio.to_thread(self._exposition))
            await writer.drain()
        writer.close()

    async def _ask(self, path: Path) -> bytes:
        """The metrics of another process; nothing if it has ended or hangs."""
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    return await reader.read(-1)
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (ConnectionRefusedError, FileNotFoundError):
            _forget(path)
        except (OSError, TimeoutError) as error:
            log.warning("no metrics from %s: %s", path.stem, error or "no answer in time")
        return b""


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


def merge(found: Sequence[tuple[str, bytes]]) -> bytes:
    """One exposition out of several.

    Args:
        found: name and exposition of each process.
    """
    heads: dict[bytes, dict[bytes, bytes]] = {}
    samples: dict[bytes, list[bytes]] = {}
    for process, text in found:
        label = f'process="{process}"'.encode()
        family = b""
        for line in text.splitlines():
            if line.startswith(b"#"):
                # "# HELP name text" and "# TYPE name kind": once for each family.
                _, kind, family, _ = line.split(b" ", 3)
                heads.setdefault(family, {}).setdefault(kind, line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, label))
    lines: list[bytes] = []
    for family, head in heads.items():
        lines += (*head.values(), *samples.get(family, ()))
    return b"\n".join(lines) + b"\n"


def _labelled(line: bytes, label: bytes) -> bytes:
    name, brace, rest = line.partition(b"{")
    if brace:
        return b"%b{%b,%b" % (name, label, rest)
    name, _, value = line.partition(b" ")
    return b"%b{%b} %b" % (name, label, value)
