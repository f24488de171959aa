"""Looks after the services that the API needs, apart from any request."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from inferstack.errors import ConfigurationError, InferstackError, StorageRefusedError

log = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between two looks, so that health requests cost the services nothing."""

STALE = 10.0
"""Seconds after which a check that has not answered counts as failed."""


class Check(NamedTuple):
    """One service and how to ask it."""

    name: str
    ask: Callable[[], Awaitable[None]]
    """Raises when it does not answer."""
    essential: bool
    """Whether no task can be accepted without it."""


class Finding(NamedTuple):
    """What a check found."""

    name: str
    ok: bool
    essential: bool
    detail: str | None
    """Why not."""
    latency: float | None
    """Seconds that the answer took."""

    @property
    def latency_ms(self) -> float | None:
        """The same as callers read it."""
        return None if self.latency is None else round(self.latency * 1000, 3)


class _Watch:
    """One check, repeated for ever."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.refusal: StorageRefusedError | None = None
        self.error: str | None = "not asked yet"
        self.latency: float | None = None
        self.answered_at = time.monotonic()

    async def look(self) -> None:
        start = time.monotonic()
        self.refusal = None
        error: str | None = None
        said = "answers again"
        try:
            await self.check.ask()
        except InferstackError as failure:
            error, said = failure.detail, str(failure)
            self.refusal = failure if isinstance(failure, StorageRefusedError) else None
        except OSError as failure:
            error, said = "does not answer", str(failure)
        except Exception as failure:
            log.exception("health check failed: %s", self.check.name)
            error = said = type(failure).__name__
        # Before the first look it counts as there: what is away from the start on is told, too.
        was_away = self.error is not None and self.latency is not None
        if (error is not None) != was_away:
            log.warning("%s: %s", self.check.name, said)
        self.answered_at = time.monotonic()
        self.error, self.latency = error, self.answered_at - start

    async def repeat(self, stopping: asyncio.Event) -> None:
        """Looks until `stopping`: a cancellation alone can get lost.

        On Python 3.11 `asyncio.wait_for`, which the driver of PostgreSQL uses, swallows one that
        arrives together with the answer.
        """
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await stopping.wait()
                    return
            await self.look()

    def finding(self, now: float) -> Finding:
        error = self.error
        if now - self.answered_at > STALE:
            error = f"has not answered for {now - self.answered_at:.0f} s"
        return Finding(self.check.name, error is None, self.check.essential, error, self.latency)


class Monitor:
    """Keeps asking; health requests read what it found last."""

    def __init__(self, checks: Sequence[Check]) -> None:
        """Args: checks: what to ask, each by itself, so that none hides behind another."""
        self._watches = [_Watch(check) for check in checks]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self.started_at = time.time()
        self.leaving = False
        """Whether this process has been told to end."""

    async def start(self) -> None:
        """Asks once, then keeps asking.

        Raises:
            ConfigurationError: a service refuses the credentials. Later, when there are requests
                to answer, that is a failed check as any other.
        """
        await asyncio.gather(*(watch.look() for watch in self._watches))
        refused = [str(watch.refusal) for watch in self._watches if watch.refusal is not None]
        if refused:
            raise ConfigurationError("\n".join(refused))
        self._stopping.clear()
        self._tasks = [asyncio.create_task(watch.repeat(self._stopping)) for watch in self._watches]

    async def stop(self) -> None:
        """Asks no more."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def findings(self) -> list[Finding]:
        """The latest finding of every check."""
        now = time.monotonic()
        return [watch.finding(now) for watch in self._watches]

    def status(self) -> str:
        """`healthy`; `degraded` without a service that inference can do without; `unhealthy`."""
        bad = [finding for finding in self.findings() if not finding.ok]
        if not bad:
            return "healthy"
        return "unhealthy" if any(finding.essential for finding in bad) else "degraded"
