"""What the driver and its event loop say, in our words."""

import asyncio
import socket

import pytest
import uvloop

from inferstack.errors import QueueUnavailableError
from inferstack.queue.connection import translated


def test_a_connection_that_the_loop_has_closed_is_a_queue_that_is_away() -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(5):
            while True:
                await asyncio.sleep(0)
                writer.writelines([b"PING\r\n"])

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            _, writer = await asyncio.open_connection(sock=ours)
            writer.transport.abort()
            with pytest.raises(QueueUnavailableError) as caught, translated():
                await send(writer)
        assert caught.value.retry_after is not None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_another_error_of_the_program_stays_one() -> None:
    with pytest.raises(RuntimeError, match="a bug"), translated():
        raise RuntimeError("a bug")
