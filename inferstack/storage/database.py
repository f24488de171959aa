"""Connections to PostgreSQL, and its errors in the terms of inferstack."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    TimeoutError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from inferstack.concurrency import Slots
from inferstack.config import Settings
from inferstack.errors import (
    ConfigurationError,
    ConflictError,
    InferstackError,
    InvalidRequestError,
    ListsBusyError,
    StorageRefusedError,
    StorageUnavailableError,
)

CHECKOUT = 10.0
"""Seconds in which a connection must be there and answer: a server that stands still accepts
connections and acknowledges what it is sent, so nothing below us ever gives up."""

PARTING = 1.0
"""Seconds that connections which were given up have at the end."""

HOLD = 60
"""Seconds that PostgreSQL lets the holder of a row do nothing: one that stands still must not keep
the recorder waiting."""

LISTS = 3
"""Lists at once: one that finds little reads much, and must not keep others from the database."""

LISTS_WAITING = 50
"""Lists that may wait for their turn."""

LIST_TIMEOUT = 10
"""Seconds that a list may take."""

CONNECT_ARGS = {
    "connect_timeout": 5,
    "application_name": "inferstack",
    # A server that vanished without a word must not hold a request for the kernel's 15 minutes.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
SCHEMES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})

REFUSED = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r'|role "[^"]*" (?:does not exist|is not permitted to log in)|database "[^"]*" does not exist'
)
"""What PostgreSQL says when it is there and does not let us in.

libpq tells no error code of a connection that failed. A server that speaks another language is one
that does not answer: it is waited for.
"""

UNMIGRATED = frozenset({"3F000", "42P01", "42703"})
"""Codes of a schema, a table or a column that is not there: the migration has yet to run."""

TRANSLATIONS: tuple[tuple[type[Exception], type[InferstackError], str], ...] = (
    (DataError, InvalidRequestError, "the database cannot hold this value"),
    (IntegrityError, ConflictError, "this exists already, or what it belongs to does not"),
    (OperationalError, StorageUnavailableError, "PostgreSQL does not answer"),
    (InterfaceError, StorageUnavailableError, "the connection to PostgreSQL broke"),
    (InternalError, StorageUnavailableError, "PostgreSQL failed"),
    (TimeoutError, StorageUnavailableError, "every connection to PostgreSQL is in use"),
)
"""Driver error, what it becomes, what to say; the first that fits wins."""


def database_url(url: str) -> URL:
    """The URL with the driver that inferstack uses everywhere, psycopg 3.

    Raises:
        ConfigurationError: it is not a PostgreSQL URL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("DATABASE_URL is not a URL; it takes postgresql://...") from None
    if parsed.drivername not in SCHEMES:
        raise ConfigurationError(
            f"DATABASE_URL starts with {parsed.drivername}://; it takes postgresql://..."
        )
    return parsed.set(drivername="postgresql+psycopg")


async def let_go_when_idle(connection: AsyncConnection) -> None:
    """Has PostgreSQL end this transaction, and free its rows, when its holder stands still."""
    limit = text(f"SET LOCAL idle_in_transaction_session_timeout = '{HOLD}s'")
    await connection.execute(limit)


def sync_engine(url: str) -> Engine:
    """A plain engine without a pool, for migrations."""
    return create_engine(database_url(url), poolclass=NullPool, connect_args=CONNECT_ARGS)


@contextmanager
def translated() -> Iterator[None]:
    """Turns driver errors into errors of inferstack, by `TRANSLATIONS`.

    A mistake in our own SQL stays what it is.
    """
    try:
        yield
    except (DBAPIError, TimeoutError) as error:
        ours = _ours(error)
        if ours is None:
            raise
        raise ours from error


def _ours(error: Exception) -> InferstackError | None:
    """The error of inferstack that one of the driver becomes; None if it stays what it is."""
    orig = getattr(error, "orig", None)
    said = str(orig or error).strip()
    cause = said.split("\n", 1)[0]
    if isinstance(error, OperationalError) and (refused := REFUSED.search(said)):
        reason = said[refused.start() :].split("\n", 1)[0]
        return StorageRefusedError("DATABASE_URL: PostgreSQL refuses it", cause=reason)
    if getattr(orig, "sqlstate", None) in UNMIGRATED:
        return StorageUnavailableError(
            "the tables are not those of this version: run `inferstack migrate`", cause=cause
        )
    for driver, ours, saying in TRANSLATIONS:
        if isinstance(error, driver):
            return ours(saying, cause=cause)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return StorageUnavailableError("PostgreSQL went away", cause=cause)
    return None


class Database:
    """A pool of connections to PostgreSQL."""

    def __init__(
        self, url: str, *, pool_size: int = 5, statement_timeout: float | None = None
    ) -> None:
        """Connects on first use.

        Args:
            url: `postgresql://user:password@host:port/name`.
            pool_size: connections kept open; as many again may open under load.
            statement_timeout: seconds after which PostgreSQL ends a statement, which is then
                a StorageUnavailableError; what the server says if None.

        Raises:
            ConfigurationError: the URL is not one of PostgreSQL.
        """
        parsed = database_url(url)
        self._engine = create_async_engine(
            parsed,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=5.0,
            # Without it every pooled connection fails once after PostgreSQL restarted.
            pool_pre_ping=True,
            connect_args=CONNECT_ARGS | _options(parsed, statement_timeout),
        )
        self._lists = Slots(LISTS, LISTS_WAITING, ListsBusyError)
        self._abandoned: set[asyncio.Task[AsyncConnection]] = set()
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    def from_settings(
        cls, settings: Settings, *, statement_timeout: float | None = None
    ) -> "Database":
        """The database of DATABASE_URL.

        Args:
            settings: for DATABASE_URL.
            statement_timeout: as in the constructor.

        Raises:
            ConfigurationError: it is missing or not a PostgreSQL URL.
        """
        if settings.database_url is None:
            raise ConfigurationError("DATABASE_URL is not set; it takes postgresql://...")
        return cls(settings.database_url, statement_timeout=statement_timeout)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: committed at the end, rolled back when the block raises.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
            StorageRefusedError: it does not let us in.
            InvalidRequestError: a value that PostgreSQL cannot hold.
            ConflictError: a uniqueness or reference rule is broken.
        """
        with translated():
            connection = await self._checkout()
            try:
                async with connection.begin():
                    yield connection
            finally:
                await connection.close()

    @asynccontextmanager
    async def list_transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for a list that may read far more than it finds.

        All of them share LISTS slots, whatever they list, as they share the connections.

        Raises:
            ListsBusyError: too many wait for theirs already.
            StorageUnavailableError: PostgreSQL does not answer, or not in LIST_TIMEOUT.
        """
        async with self._lists.slot(), self.transaction() as connection:
            await connection.execute(text(f"SET LOCAL statement_timeout = '{LIST_TIMEOUT}s'"))
            yield connection

    async def _checkout(self) -> AsyncConnection:
        """A connection of the pool that has just answered.

        One that does not answer cannot be cancelled, since psycopg would wait for the server once
        more. It is left to itself, and goes back to the pool when the server wakes up.
        """
        connecting = asyncio.create_task(self._connect())
        try:
            there, _ = await asyncio.wait({connecting}, timeout=CHECKOUT)
        except asyncio.CancelledError:
            # It may have come in the same moment.
            self._abandon(connecting)
            raise
        if not there:
            self._abandon(connecting)
            raise StorageUnavailableError(f"PostgreSQL does not answer within {CHECKOUT:g} s")
        return connecting.result()

    async def _connect(self) -> AsyncConnection:
        return await self._engine.connect()

    def _abandon(self, connecting: "asyncio.Task[AsyncConnection]") -> None:
        """Lets go of a connection that nobody waits for any more."""
        self._abandoned.add(connecting)
        connecting.add_done_callback(self._give_back)

    def _give_back(self, connecting: "asyncio.Task[AsyncConnection]") -> None:
        self._abandoned.discard(connecting)
        if not connecting.cancelled() and connecting.exception() is None:
            closing = asyncio.create_task(connecting.result().close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def check(self) -> None:
        """Asks PostgreSQL for an answer, for health checks.

        Raises:
            StorageUnavailableError: there is none.
            StorageRefusedError: PostgreSQL does not let us in.
        """
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes every connection; what nobody waits for any more has PARTING seconds to come."""
        for task in self._abandoned:
            task.cancel()
        # In turn: what comes is given back, which is a task of its own.
        for tasks in (self._abandoned, self._closing):
            if tasks:
                await asyncio.wait(set(tasks), timeout=PARTING)
        await self._engine.dispose()


def _options(url: URL, statement_timeout: float | None) -> dict[str, str]:
    """The connection's `options`; what the URL says itself comes last and wins."""
    if statement_timeout is None:
        return {}
    given = url.query.get("options", ())
    own = f"-c statement_timeout={int(statement_timeout * 1000)}"
    return {"options": " ".join([own, *([given] if isinstance(given, str) else given)])}
