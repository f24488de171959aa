"""Stand-ins, for what the API cannot be made to do at will: stream, hang, be found by name."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tests.services import free_port

EVENT = b"data: one\n\n"


class Upstream:
    """Answers with a stream that goes on when it is told to, or becomes another protocol."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self.port = free_port()
        self.heads: list[str] = []
        """Of all requests, in lower case."""
        self.go_on = asyncio.Event()
        self.extra = ""
        """Header lines of the answers."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listens until the block ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            self.heads.append(head)
            await (self._echo if "upgrade: websocket" in head else self._stream)(reader, writer)
        writer.close()

    async def _stream(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{self.extra}"
        writer.write(f"{head}connection: close\r\n\r\n".encode() + EVENT)
        await writer.drain()
        await self.go_on.wait()
        writer.write(EVENT)
        await writer.drain()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        writer.write(b"connection: upgrade\r\nupgrade: websocket\r\n\r\n")
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()


@contextmanager
def unreachable() -> Iterator[str]:
    """An address that neither takes a connection nor refuses it: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class Names:
    """A name server that knows one name; a context manager."""

    def __init__(self, *addresses: str) -> None:
        """Args: addresses: what the name stands for; may change at any time."""
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Names":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty datagram ends the loop.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        """RFC 1035 4.1: the question again, and an A record for each address."""
        end = query.index(b"\0", 12) + 5
        question = query[12:end]
        wants_a = question[-4:-2] == b"\0\1"
        records = [
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 600, 4) + socket.inet_aton(address)
            for address in (self.addresses if wants_a else ())
        ]
        head = query[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
        return head + question + b"".join(records)
