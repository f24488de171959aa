"""A primary of Redis, its replica, and a name that leads to one of them."""

import time
from typing import Any, Self

import redis

from tests.faults.proxy import Proxy
from tests.services import RedisServer, free_port

PAUSE_MS = 60_000
"""At most, for writes, while the roles change."""


class Pair:
    """Two servers that change roles; connections that are there stay where they are."""

    def __init__(self, primary: RedisServer | None = None) -> None:
        """Args: primary: one that runs already, and that somebody else ends."""
        self.primary, self.replica = primary or RedisServer(), RedisServer()
        self._own = [self.replica] if primary else [self.primary, self.replica]
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._network = Proxy(port, self.primary.port)

    async def __aenter__(self) -> Self:
        try:
            for server in self._own:
                server.start()
            with _client(self.replica) as replica:
                replica.replicaof("127.0.0.1", str(self.primary.port))
            await self._network.__aenter__()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._network.__aexit__(*error)
        self._close()

    def blocked(self) -> bool:
        """Whether a client waits in a command of the primary."""
        with _client(self.primary) as primary:
            return int(primary.info("clients")["blocked_clients"]) > 0

    def demote(self) -> None:
        """Swaps the roles, losing nothing; the name still leads to what is a replica now."""
        old, new = self.primary, self.replica
        with _client(old) as was, _client(new) as becomes:
            # What is written behind the comparison would be lost.
            was.client_pause(PAUSE_MS, all=False)
            _until_equal(was, becomes)
            becomes.replicaof("NO", "ONE")
            was.replicaof("127.0.0.1", str(new.port))
            was.client_unpause()
        self.primary, self.replica = new, old

    def promote(self) -> None:
        """From now on the name leads to the new primary; who is connected is not told."""
        self._network.target = self.primary.port

    def _close(self) -> None:
        for server in self._own:
            server.close()


def _client(server: RedisServer) -> redis.Redis:
    return redis.Redis(port=server.port, socket_timeout=5)


def _until_equal(primary: redis.Redis, replica: redis.Redis) -> None:
    deadline = time.monotonic() + 30
    while True:
        link = replica.info("replication")
        there = primary.info("replication")["master_repl_offset"]
        if link.get("master_link_status") == "up" and link["slave_repl_offset"] >= there:
            return
        assert time.monotonic() < deadline, "the replica does not follow"
        time.sleep(0.02)
