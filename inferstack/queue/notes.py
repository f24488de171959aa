"""Which tasks compute now, written down before they do, at no round trip."""

from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Connection

from inferstack.queue.connection import connect, translated
from inferstack.queue.task_queue import prefix

SET_NOTE = "#!lua flags=allow-oom\nredis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"
"""A bare SET is refused when Redis is at its memory limit, while tasks still run."""


class Notes:
    """One replica's note of the batch it began last, `run:<replica>` in Redis.

    Redis is told not to answer on this connection: the note only has to leave this process
    before the batch can take the process down, and the kernel delivers what was written even
    then. A note that goes under with Redis leaves a crash uncharged, no more. Whether notes arrive
    is seen with the next heartbeat.
    """

    def __init__(self, url: str, deployment: str, worker: str, keep: float) -> None:
        """Connects with the first note.

        Args:
            url: of Redis.
            deployment: `model:version`.
            worker: the replica.
            keep: seconds after which a note is of no use.
        """
        self._pool = connect(url, max_connections=1).connection_pool
        self._key = f"{prefix(deployment)}run:{worker}"
        self._keep_ms = int(keep * 1000)
        self._connection: Connection | None = None
        self.latest = ""
        """What it wrote last."""

    async def write(self, batch: Sequence[tuple[str, int]]) -> None:
        """Replaces the note; when this returns it is on its way.

        Args:
            batch: ids and attempts of the tasks that begin.
        """
        self.latest = " ".join(f"{task_id}/{attempt}" for task_id, attempt in batch)
        await self._send()

    async def repeat(self) -> None:
        """Writes the latest note again, on a new connection: it did not arrive, or has expired.

        After a failover the old connection may lead to a server that takes no writes any more.
        """
        await self.close()
        await self._send()

    async def _send(self) -> None:
        with translated():
            connection = self._connection or await self._connect()
            try:
                await connection.send_command(
                    "EVAL", SET_NOTE, 1, self._key, self.latest, self._keep_ms
                )
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)

    async def _connect(self) -> Connection:
        make: Callable[[], Connection] = self._pool.make_connection
        connection = make()
        connect_it: Callable[[], Awaitable[None]] = connection.connect
        await connect_it()
        await connection.send_command("CLIENT", "REPLY", "OFF")
        self._connection = connection
        return connection
