"""What the routes need, made from the settings and started together."""

import asyncio
import logging
from functools import partial
from typing import NamedTuple

from inferstack import failpoint
from inferstack.api.auth import Authenticator
from inferstack.api.exposition import Exposition
from inferstack.api.health import Check, Monitor
from inferstack.api.overview import Overview
from inferstack.api.tokens import Tokens
from inferstack.concurrency import end
from inferstack.config import Settings, require
from inferstack.errors import ConfigurationError, InvalidRequestError
from inferstack.lifecycle.dead_letters import DeadLetters
from inferstack.lifecycle.tasks import Tasks
from inferstack.queue.connection import connect, ping
from inferstack.storage.accounts import Accounts, check_account
from inferstack.storage.database import Database
from inferstack.storage.history import History
from inferstack.storage.objects import ObjectStore
from inferstack.storage.usage import Usage
from inferstack.telemetry.traces import Tracer

log = logging.getLogger(__name__)

ADMIN_RETRY = 2.0
"""Seconds between two attempts to make the administrator while PostgreSQL is away."""

STORE_PATIENCE = 10.0
"""Seconds that a call of the object store may take: then whoever waits for it gets 503."""

STATEMENT_TIMEOUT = 30.0
"""Seconds that a statement of a request may take: a lock must not hold requests for ever."""


class Services(NamedTuple):
    """One of each a process; the routes reach them as `request.app.state.services`."""

    settings: Settings
    tasks: Tasks
    accounts: Accounts
    authenticator: Authenticator
    tokens: Tokens | None
    monitor: Monitor
    exposition: Exposition
    overview: Overview
    dead_letters: DeadLetters
    usage: Usage
    tracer: Tracer | None = None
    """None where no spans are sent."""


class Lifetime:
    """Makes the services, starts them and stops them."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet.

        Raises:
            ConfigurationError: a URL is missing or not one, there is nothing to sign tokens with,
                or nobody can have the administrator's name or password.
        """
        if settings.auth_required and settings.secret_key is None:
            missing = "AUTH_REQUIRED=true needs SECRET_KEY with 32 characters or more"
            raise ConfigurationError(missing)
        _check_admin(settings)
        require(settings, "redis_url", "database_url")
        failpoint.arm(settings)
        self._settings = settings
        self._redis = connect(str(settings.redis_url))
        self._database = Database.from_settings(settings, statement_timeout=STATEMENT_TIMEOUT)
        self._store = ObjectStore.from_settings(settings, STORE_PATIENCE)
        self._admin: asyncio.Task[None] | None = None
        accounts = Accounts(self._database)
        secret = settings.secret_key
        tokens = Tokens(secret.get_secret_value(), settings.access_token_ttl) if secret else None
        tasks = Tasks(self._redis, self._store, History(self._database), settings)
        monitor = Monitor(self._checks())
        exposition = Exposition(tasks, monitor.findings, settings)
        self.services = Services(
            settings=settings,
            tasks=tasks,
            accounts=accounts,
            authenticator=Authenticator(settings, tokens, accounts.api_key),
            tokens=tokens,
            monitor=monitor,
            exposition=exposition,
            overview=Overview(tasks, monitor, exposition),
            dead_letters=DeadLetters(self._redis, tasks, self._store, self._database, settings),
            usage=Usage(self._database),
            tracer=Tracer.from_settings(settings),
        )

    async def start(self) -> None:
        """Returns once tasks can be accepted; waits for Redis as long as that takes.

        Raises:
            ConfigurationError: Redis, PostgreSQL or the object store refuses the credentials.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        await self.services.tasks.start()
        await self.services.monitor.start()
        await self.services.exposition.start()
        if self.services.tracer is not None:
            self.services.tracer.start()
        if self._settings.admin_password is not None:
            self._admin = asyncio.create_task(self._ensure_admin())

    async def stop(self) -> None:
        """Lets what is on its way in be committed, then disconnects."""
        await end(self._admin)
        await self.services.overview.stop()
        if self.services.tracer is not None:
            await self.services.tracer.stop()
        await self.services.exposition.stop()
        await self.services.monitor.stop()
        await self.services.tasks.stop()
        await self._redis.aclose()
        await self._database.close()

    def _checks(self) -> tuple[Check, ...]:
        return (
            Check("queue", partial(ping, self._redis), essential=True),
            Check("database", self._database.check, essential=False),
            Check("objects", self._store.check, essential=False),
        )

    async def _ensure_admin(self) -> None:
        """Inference needs no PostgreSQL, so its absence must not keep the API from starting."""
        password = self._settings.admin_password
        assert password is not None
        failing = False
        while True:
            try:
                await self.services.accounts.ensure_admin(
                    self._settings.admin_username, password.get_secret_value()
                )
            except Exception as error:
                # Whatever the database says: its tables may not be there yet, either.
                if not failing:
                    log.warning("cannot make the administrator yet: %s", error)
                failing = True
                await asyncio.sleep(ADMIN_RETRY)
            else:
                if failing:
                    log.info("made the administrator")
                return


def _check_admin(settings: Settings) -> None:
    name, password = settings.admin_username, settings.admin_password
    if password is None:
        return
    try:
        check_account(name, password.get_secret_value(), name, "admin")
    except InvalidRequestError as error:
        wrong = (error.errors or [{}])[0]
        setting = "ADMIN_PASSWORD" if wrong.get("field") == "password" else "ADMIN_USERNAME"
        raise ConfigurationError(f"{setting}: it {wrong.get('message')}") from None
