"""Connections to Redis, and its errors in the terms of inferstack."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from inferstack.errors import (
    ConfigurationError,
    QueueFullError,
    QueueRefusedError,
    QueueUnavailableError,
)

__all__ = ["Redis", "connect", "ping", "translated"]

PASSING = (ReadOnlyError, ClusterDownError, MasterDownError, TryAgainError)
PASSING_PREFIXES = ("MISCONF", "BUSY", "NOREPLICAS", "UNBLOCKED")
"""What Redis answers during a failover, while a script is stuck, or while it cannot write."""

CLOSED = "handler is closed"
"""What uvloop says, in a RuntimeError, of a connection that was reset between two steps."""

COMMAND_TIMEOUT = 10.0
"""Seconds that Redis may take to answer a command that does not block."""


class _Client(Redis):
    """Leaves a server that a failover has made a replica: it will not be told of the new one."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        execute: Callable[..., Awaitable[Any]] = super().execute_command
        try:
            return await execute(*args, **options)
        except ResponseError as error:
            if isinstance(error, ReadOnlyError) or str(error).startswith("UNBLOCKED"):
                # By now its name may lead to the new one.
                await self.connection_pool.disconnect(inuse_connections=False)
            raise


def connect(
    url: str,
    *,
    max_connections: int = 64,
    timeout: float | None = COMMAND_TIMEOUT,
    variable: str = "REDIS_URL",
) -> "Redis":
    """A client that never repeats a command by itself.

    Whether a repeat is safe is known only to the caller, so redis-py's own retries are off.

    Args:
        url: `redis://` or `rediss://`.
        max_connections: upper limit of the pool.
        timeout: seconds for one command; None for connections that block.
        variable: the setting that names it.

    Raises:
        ConfigurationError: it is no URL of Redis.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            # How long a command waits for one of them when all are busy.
            timeout=COMMAND_TIMEOUT,
            socket_timeout=timeout,
            socket_connect_timeout=5.0,
            socket_keepalive=True,
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            # In RESP3, redis-py writes out every published message for a line that nobody reads.
            protocol=2,
        )
    except ValueError as error:
        raise ConfigurationError(f"{variable} is not a URL of Redis: {error}") from None
    return _Client.from_pool(pool)


async def ping(redis: "Redis", variable: str = "REDIS_URL") -> None:
    """Asks for an answer; errors as of `translated`.

    Args:
        redis: a client from `connect`.
        variable: the setting that names it.
    """
    with translated(variable=variable):
        await redis.ping()


async def clock_ms(redis: "Redis") -> int:
    """The time by the clock of Redis."""
    with translated():
        seconds, micros = await redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


@contextmanager
def translated(task_id: str | None = None, *, variable: str = "REDIS_URL") -> Iterator[None]:
    """Turns driver errors into errors of inferstack.

    Args:
        task_id: the task that the commands are about.
        variable: the setting that names the server.

    Raises:
        QueueRefusedError: Redis refuses the credentials.
        QueueFullError: Redis is out of memory and takes no new work.
        QueueUnavailableError: Redis does not answer, is loading, or cannot write to its disk.
    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise QueueRefusedError(f"{variable}: Redis refuses it", cause=str(error)) from error
    except OutOfMemoryError as error:
        raise QueueFullError(
            "Redis is at its memory limit", task_id=task_id, retry_after=5.0
        ) from error
    except (ConnectionError, TimeoutError, OSError) as error:
        raise QueueUnavailableError(
            "Redis does not answer", cause=str(error), task_id=task_id
        ) from error
    except RuntimeError as error:
        if CLOSED not in str(error):
            raise
        raise QueueUnavailableError(
            "Redis does not answer", cause="the connection is closed", task_id=task_id
        ) from error
    except PASSING as error:
        raise QueueUnavailableError(str(error), task_id=task_id, retry_after=5.0) from error
    except ResponseError as error:
        if str(error).startswith(PASSING_PREFIXES):
            raise QueueUnavailableError(str(error), task_id=task_id, retry_after=5.0) from error
        raise
    except RedisError as error:
        raise QueueUnavailableError(cause=str(error), task_id=task_id, retry_after=1.0) from error
