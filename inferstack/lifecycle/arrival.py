"""What a process does at its start about the services that it needs: it waits, and says for what.

A service that is not there comes later, and a restart would not bring it. One that refuses the
credentials never will: the process ends, with one line that names the setting.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from inferstack.errors import ConfigurationError, InferstackError, StorageRefusedError
from inferstack.queue.connection import Redis, ping
from inferstack.retry import full_jitter
from inferstack.storage.objects import ObjectStore

if TYPE_CHECKING:  # SQLAlchemy takes longer to import than all of a replica that never asks it.
    from inferstack.storage.database import Database

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two looks: the least, and what is added at most."""


class Need(NamedTuple):
    """One service and how to ask it."""

    name: str
    """For people, with the setting that names it: `Redis (REDIS_URL)`."""
    ask: Callable[[], Awaitable[None]]
    """Raises when it does not answer."""
    essential: bool = True
    """Whether nothing can be done without it; else it is asked once, for its credentials."""


def queue(redis: Redis, variable: str = "REDIS_URL") -> Need:
    """Redis, by the setting that names it."""
    return Need(f"Redis ({variable})", partial(ping, redis, variable))


def database(found: "Database") -> Need:
    """PostgreSQL."""
    return Need("PostgreSQL (DATABASE_URL)", found.check)


def objects(store: ObjectStore) -> Need:
    """The object store: only large bodies need it."""
    return Need("the object store (S3_ENDPOINT)", store.check, essential=False)


async def arrived(needs: Sequence[Need], stopping: asyncio.Event) -> bool:
    """Waits until every service has answered once.

    Args:
        needs: in the order in which they are asked.
        stopping: ends the wait.

    Returns:
        Whether they have; False if `stopping` came first.

    Raises:
        ConfigurationError: a service refuses the credentials.
    """
    for need in needs:
        if not await _answers(need, stopping):
            return False
    return True


async def _answers(need: Need, stopping: asyncio.Event) -> bool:
    failures = 0
    while not stopping.is_set():
        try:
            await need.ask()
        except (ConfigurationError, StorageRefusedError) as error:
            raise ConfigurationError(str(error)) from error
        except InferstackError as error:
            failures += 1
            if failures == 1:
                going = "waiting for" if need.essential else "going on without"
                log.warning("%s %s: %s", going, need.name, error)
            if not need.essential:
                return True
        else:
            if failures:
                log.info("%s answers", need.name)
            return True
        jitter = full_jitter(failures, FIRST_PAUSE, LONGEST_PAUSE, random.Random())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), FIRST_PAUSE + jitter)
    return False
