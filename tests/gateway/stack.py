"""Two real API processes, on the same port of two addresses: what one name resolves to."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import psycopg

from tests.faults.cluster import ADMIN_PASSWORD, Cluster, Process, until

SECOND = "127.0.0.2"
ESTABLISHED = "01"
"""As /proc/net/tcp has it."""


class Replicated(Cluster):
    """A `Cluster` with a second API process."""

    def __init__(self) -> None:
        """Starts nothing; it is a context manager."""
        super().__init__(max_body_bytes=64 * 1024)
        self.second = Process("api-2", "inferstack.api")
        # The first one lets local callers in, and only those.
        self.second.env = {"HOST": SECOND, "AUTH_REQUIRED": "true"}

    @property
    def processes(self) -> list[Process]:
        """All of inferstack's."""
        return [*super().processes, self.second]

    @property
    def addresses(self) -> tuple[str, str]:
        """Of the API processes."""
        return f"127.0.0.1:{self.port}", f"{SECOND}:{self.port}"

    async def restart(self) -> None:
        """Starts the second API process again and waits until it answers."""
        self._begin(self.second)
        await until(self.answers(SECOND))

    def answers(self, host: str) -> Callable[[], Awaitable[bool]]:
        """Asks whether the API process at this address takes work."""

        async def ask() -> bool:
            try:
                async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
                    answer = await client.get(f"http://{host}:{self.port}/health/ready")
            except httpx.HTTPError:
                return False
            return answer.status_code == 200

        return ask

    def login(self) -> dict[str, str]:
        """Headers of the administrator."""
        answer = httpx.post(
            f"{self.url}/api/auth/login",
            json={"username": "admin", "password": ADMIN_PASSWORD},
            trust_env=False,
        )
        return {"authorization": f"Bearer {answer.json()['access_token']}"}

    def unread(self) -> int:
        """Connections to the API processes on which something waits to be read."""
        found = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues = line.split()[:5]
            ours = int(local.split(":")[1], 16) == self.port and state == ESTABLISHED
            found += ours and int(queues.split(":")[1], 16) > 0
        return found

    def tasks(self, marker: str) -> list[str]:
        """The payloads of all archived tasks whose payload begins so."""
        with psycopg.connect(self.postgres.url) as connection:
            rows = connection.execute(
                "SELECT input->>'payload' FROM tasks WHERE input->>'payload' LIKE %s",
                (f"{marker}%",),
            )
            return [row[0] for row in rows]
