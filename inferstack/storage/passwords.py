"""Password hashes: argon2id, computed off the event loop and few at a time."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from inferstack.concurrency import Slots
from inferstack.errors import LoginsBusyError

PARALLEL = 2
"""Hashes computed at once: each takes 64 MiB and a core, and a flood of logins is an attack."""

MAX_WAITING = 20
"""Hashes that may wait for their turn; the last of them waits for about a second."""

_hasher = PasswordHasher()
_decoy = (
    f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    f"${'A' * 22}${'A' * 43}"
)
"""A hash of no known password, as costly to check as a real one."""


class Passwords:
    """Makes and checks argon2id hashes with the parameters of RFC 9106."""

    def __init__(self) -> None:
        """Limits what runs at once on the loop that uses it."""
        self._slots = Slots(PARALLEL, MAX_WAITING, LoginsBusyError)

    async def hash(self, password: str) -> str:
        """A salted hash; the result holds its own parameters.

        Raises:
            LoginsBusyError: too many wait already.
        """
        async with self._slots.slot():
            return await asyncio.to_thread(_hasher.hash, password.encode("utf-8", "replace"))

    async def matches(self, known: str | None, password: str) -> bool:
        """Whether a password belongs to a hash.

        Args:
            known: the hash; None for an unknown user, which takes the same time and fails.
            password: what was typed.

        Raises:
            LoginsBusyError: too many wait already.
        """
        async with self._slots.slot():
            matches = await asyncio.to_thread(_matches, known or _decoy, password)
        return matches and known is not None

    @staticmethod
    def outdated(known: str) -> bool:
        """Whether a hash was made with weaker parameters than today's."""
        return _hasher.check_needs_rehash(known)


def _matches(known: str, password: str) -> bool:
    try:
        return _hasher.verify(known, password.encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return False
