"""A TCP proxy in front of Redis that behaves as bad networks do."""

import asyncio
import contextlib
from enum import Enum
from types import TracebackType
from typing import Self


class Mode(Enum):
    """What becomes of what passes."""

    PASS = "pass"
    BLACKHOLE = "blackhole"
    """Connections stay, nothing arrives, in either direction."""
    RESET = "reset"
    """Connections are reset, and new ones too."""
    DROP = "drop"
    """Requests arrive; at the first byte of a reply the connection is reset."""


class Proxy:
    """Listens on the loopback address; `mode` may change at any time."""

    def __init__(self, port: int, target: int) -> None:
        """Args: port: where to listen. target: the port of Redis."""
        self.mode = Mode.PASS
        self.dropped = 0
        """Replies that did not arrive."""
        self.target = target
        """Where new connections go; those that are there stay."""
        self._port = port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for pipe in tuple(self._pipes):
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def reset(self) -> None:
        """Resets every connection there is."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.RESET:
            writer.transport.abort()
            return
        to_redis = await asyncio.open_connection("127.0.0.1", self.target)
        both = {writer, to_redis[1]}
        self._writers |= both
        for source, sink, reply in ((reader, to_redis[1], False), (to_redis[0], writer, True)):
            pipe = asyncio.create_task(self._pump(source, sink, both, reply=reply))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        *,
        reply: bool,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if self.mode is Mode.RESET:
                    break
                if self.mode is Mode.DROP and reply:
                    self.dropped += 1
                    break
                if self.mode is not Mode.BLACKHOLE:
                    sink.write(data)
                    await sink.drain()
        for writer in both:
            writer.transport.abort()
        self._writers -= both
