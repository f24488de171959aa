"""What a replica process writes to stderr until it is ready.

A replica that dies before any of its own code runs can only be understood by its last line. So
its stderr goes through the pool at first. Once it is ready it writes to the pool's stderr itself:
a pool that is killed takes no running replica down with a broken pipe.
"""

import asyncio
import contextlib
import os
import sys

READY = b"\0"
"""What a replica writes as the last thing into the pipe."""
LONGEST_LINE = 300
"""Characters of the last line that are kept."""
MOST_HELD = 65536
"""Bytes of a line that are held until its end comes; a longer one is passed on in pieces."""


class EarlyOutput:
    """The pool's end: passes lines on, keeps the last one, learns that the replica is ready."""

    def __init__(self) -> None:
        """Opens the pipe; `write_end` is for the replica, `close_write_end` once it has it."""
        self.ready = False
        self.last_line = ""
        self._read_end, self.write_end = os.pipe()
        self._rest = b""
        self._open = True
        os.set_blocking(self._read_end, False)
        asyncio.get_running_loop().add_reader(self._read_end, self._take)

    def close_write_end(self) -> None:
        """Leaves the replica as the only one that can write."""
        os.close(self.write_end)

    def finish(self) -> None:
        """Takes what is left; call it when the replica has ended."""
        # A process that the replica started may still hold the other end: do not wait for it.
        with contextlib.suppress(BlockingIOError):
            while self._open:
                self._read()
        self._close()

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._read()

    def _read(self) -> None:
        chunk = os.read(self._read_end, 65536)
        if not chunk:
            self._close()
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._pass_on(line + b"\n")
        if len(self._rest) > MOST_HELD:
            self._pass_on(self._rest)
            self._rest = b""

    def _pass_on(self, line: bytes) -> None:
        if READY in line:
            self.ready = True
            line = line.replace(READY + b"\n", b"")
        if text := line.decode(errors="replace").strip():
            self.last_line = text[:LONGEST_LINE]
        # Where the disk under it is full, a replica must start all the same.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), line)

    def _close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._read_end)
            os.close(self._read_end)
            if self._rest:
                self._pass_on(self._rest + b"\n")


def end_early_output(stderr: int) -> None:
    """The replica's end: says that it is ready, and writes to the pool's stderr from now on.

    Args:
        stderr: file descriptor of the pool's stderr; closed.
    """
    sys.stderr.flush()
    os.write(sys.stderr.fileno(), READY + b"\n")
    os.dup2(stderr, sys.stderr.fileno())
    os.close(stderr)
