"""Who sends a request: access tokens, API keys, and anonymous callers on this machine."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple, Protocol

from inferstack.api.tokens import Tokens
from inferstack.concurrency import Slots
from inferstack.config import LOOPBACK, Settings
from inferstack.errors import ApiKeysBusyError, AuthenticationError, StorageUnavailableError
from inferstack.lifecycle.types import Caller
from inferstack.storage.accounts import KEY_PREFIX, ApiKey
from inferstack.telemetry import metrics

log = logging.getLogger(__name__)

ANONYMOUS = Caller(tenant="local", user="anonymous")
CACHE_SIZE = 10_000
TOKEN_TRUST = 60.0
"""Seconds for which a verified token is not verified again, within its own lifetime."""

KEY_TRUST = 10.0
"""Seconds after which a revoked API key is refused by every process."""

KEY_PATIENCE = 1.0
"""Seconds that a request waits for PostgreSQL if its API key was good before. One that stands still
gives no answer at all, and it would hold up every request with a key."""

STRANGERS = 3
"""Keys not verified before that are looked up at once: each takes a connection to PostgreSQL, which
anybody could keep from others with made-up keys."""

STRANGERS_WAITING = 200
"""Such keys that may wait for their turn; the last of them waits for about half a second."""

OUTAGE_TRUST = 600.0
"""Seconds for which a verified API key is trusted on while PostgreSQL does not answer.

Nothing can be revoked then either, and inference goes on without PostgreSQL.
"""

REVOKED = 1000
"""Keys revoked last that this process remembers, for look-ups that were on their way."""


class FindKey(Protocol):
    """Looks API keys up."""

    async def __call__(self, plaintext: str) -> ApiKey | None:
        """The key; None if there is no such key or it is revoked."""
        ...


class Verified(NamedTuple):
    """A credential that was good."""

    caller: Caller
    fresh_until: float
    """Seconds since the epoch; afterwards it must be verified again."""
    outage_until: float
    """Until when it is good enough while PostgreSQL is away."""
    key_id: str | None = None
    """`ApiKey.id`; None for an access token."""


class VerifiedCache:
    """The latest verified credentials by SHA-256, so that it holds no secret. Bounded."""

    def __init__(self, size: int = CACHE_SIZE) -> None:
        """Args: size: entries kept; the oldest goes first."""
        self._size = size
        self._entries: dict[bytes, Verified] = {}

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def get(self, credential: bytes) -> Verified | None:
        """The entry of a credential, fresh or not."""
        return self._entries.get(sha256(credential).digest())

    def put(self, credential: bytes, entry: Verified) -> None:
        """Remembers a credential."""
        digest = sha256(credential).digest()
        self._entries.pop(digest, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[digest] = entry

    def drop(self, credential: bytes) -> None:
        """Forgets a credential."""
        self._entries.pop(sha256(credential).digest(), None)

    def drop_key(self, key_id: str) -> None:
        """Forgets a key in whatever header it came."""
        gone = [digest for digest, entry in self._entries.items() if entry.key_id == key_id]
        for digest in gone:
            del self._entries[digest]


class Authenticator:
    """Tells who sends a request."""

    def __init__(self, settings: Settings, tokens: Tokens | None, find_key: FindKey) -> None:
        """Args: tokens: None where no secret is set: access tokens are refused then."""
        self._required = settings.auth_required
        self._tokens = tokens
        self._find_key = find_key
        self._cache = VerifiedCache()
        self._lookups: dict[bytes, asyncio.Task[Caller]] = {}
        self._strangers = Slots(STRANGERS, STRANGERS_WAITING, ApiKeysBusyError)
        self._revoked: deque[str] = deque(maxlen=REVOKED)

    def known(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """The caller, if the credential was verified a moment ago; costs no I/O."""
        credential = headers.get(b"x-api-key", headers.get(b"authorization"))
        if credential is None:
            return None
        entry = self._cache.get(credential)
        return entry.caller if entry is not None and entry.fresh_until > time.time() else None

    async def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """The caller of a request with these headers, names in lower case.

        Raises:
            AuthenticationError: there is no credential, or it is not valid.
            StorageUnavailableError: an API key cannot be looked up now.
        """
        known = self.known(headers)
        if known is not None:
            return known
        key = headers.get(b"x-api-key")
        if key is not None:
            return await self._by_key(key, key)
        header = headers.get(b"authorization")
        if header is None:
            return self._anonymous(headers)
        scheme, _, credential = header.partition(b" ")
        credential = credential.strip()
        if scheme.lower() != b"bearer" or not credential:
            raise AuthenticationError("Authorization takes: Bearer <access token or API key>")
        if (plain := b"Bearer " + credential) != header:
            # Ways to write it are many: one entry for each would leave no room for other callers'.
            return await self.caller({b"authorization": plain})
        if credential.startswith(KEY_PREFIX.encode()):
            return await self._by_key(credential, header)
        return self._by_token(credential, header)

    def revoked(self, key_id: str) -> None:
        """Refuses a key from now on, also while PostgreSQL is away; others stay as they are.

        Args:
            key_id: `ApiKey.id`.
        """
        self._cache.drop_key(key_id)
        if key_id not in self._revoked:
            self._revoked.append(key_id)

    def _anonymous(self, headers: Mapping[bytes, bytes]) -> Caller:
        if self._required:
            raise AuthenticationError("send an access token or an API key")
        # A web page can make a browser call this port under its own name (DNS rebinding), and a
        # proxy makes strangers look local; neither is an anonymous caller on this machine.
        host = _hostname(headers.get(b"host", b""))
        if host not in LOOPBACK or b"x-forwarded-for" in headers or b"forwarded" in headers:
            raise AuthenticationError(
                "only local calls to localhost or 127.0.0.1 need no credentials"
            )
        return ANONYMOUS

    def _by_token(self, credential: bytes, cached_as: bytes) -> Caller:
        if self._tokens is None:
            raise AuthenticationError("this server has no SECRET_KEY, so it takes no tokens")
        try:
            caller, expires = self._tokens.verify(credential.decode("latin-1"))
        except AuthenticationError:
            metrics.CREDENTIAL_CHECKS.labels("token", "refused").inc()
            raise
        metrics.CREDENTIAL_CHECKS.labels("token", "verified").inc()
        until = min(expires, time.time() + TOKEN_TRUST)
        self._cache.put(cached_as, Verified(caller, until, until))
        return caller

    async def _by_key(self, key: bytes, cached_as: bytes) -> Caller:
        """One look-up at a time for each key, however many requests carry it."""
        lookup = self._lookups.get(cached_as)
        if lookup is None:
            lookup = asyncio.create_task(self._look_up(key, cached_as))
            self._lookups[cached_as] = lookup
            lookup.add_done_callback(lambda done: self._looked_up(cached_as, done))
        if self._cache.get(cached_as) is not None:
            done, _ = await asyncio.wait({lookup}, timeout=KEY_PATIENCE)
            if not done and (caller := self._trust_on(cached_as)) is not None:
                return caller
        return await asyncio.shield(lookup)

    def _looked_up(self, cached_as: bytes, lookup: "asyncio.Task[Caller]") -> None:
        del self._lookups[cached_as]
        if not lookup.cancelled():
            lookup.exception()  # Perhaps nobody waited for it so long.

    async def _look_up(self, key: bytes, cached_as: bytes) -> Caller:
        now = time.time()
        try:
            found = await self._find(key.decode("latin-1"), cached_as)
        except StorageUnavailableError:
            trusted = self._trust_on(cached_as)
            if trusted is None:
                raise
            return trusted
        if found is not None and found.id in self._revoked:
            found = None  # It was read just before that.
        metrics.CREDENTIAL_CHECKS.labels("key", "verified" if found else "refused").inc()
        if found is None:
            self._cache.drop(cached_as)
            raise AuthenticationError("the API key is not valid")
        caller = Caller(found.tenant, found.username, found.role)
        entry = Verified(caller, now + KEY_TRUST, now + OUTAGE_TRUST, found.id)
        self._cache.put(cached_as, entry)
        return caller

    async def _find(self, key: str, cached_as: bytes) -> ApiKey | None:
        if self._cache.get(cached_as) is not None:
            return await self._find_key(key)
        async with self._strangers.slot():
            return await self._find_key(key)

    def _trust_on(self, cached_as: bytes) -> Caller | None:
        """The caller of a key that was good before PostgreSQL went away; it counts as fresh now."""
        now, entry = time.time(), self._cache.get(cached_as)
        if entry is None or entry.outage_until < now:
            return None
        log.warning("PostgreSQL is away: trusting an API key that was verified before")
        self._cache.put(cached_as, entry._replace(fresh_until=now + KEY_TRUST))
        return entry.caller


def _hostname(host: bytes) -> str:
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]
