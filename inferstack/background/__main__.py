"""`python -m inferstack.background`: a Celery worker, and its clock unless `--no-beat` is given."""

import argparse
import asyncio
import signal
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_ready
from prometheus_client import generate_latest

from inferstack import config, refusal
from inferstack.background.app import QUEUE, clock, create_app
from inferstack.background.liveness import Liveness, UnderWay
from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.lifecycle import arrival
from inferstack.queue.connection import connect
from inferstack.storage.database import Database
from inferstack.storage.objects import ObjectStore
from inferstack.telemetry import logs, metrics, pulse
from inferstack.telemetry.aside import aside
from inferstack.telemetry.exposure import shown

THREADS = 3
"""One more than there are duties that may be long, `retention` and `orphans`: both are sent at the
start, and the frequent ones must not wait for them until they expire."""


def main() -> int:
    """Works until SIGTERM, then finishes what it began; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inferstack.background", description=__doc__)
    parser.add_argument("--no-beat", action="store_true", help="only work; another one sends")
    chosen = parser.parse_args()
    try:
        settings = config.settings_with("redis_url", "database_url")
        logs.setup("background", level=settings.log_level, style=settings.log_format)
        duties = UnderWay(THREADS)
        liveness = Liveness(duties)
        with aside(_seen(settings, liveness)) as own:
            app = create_app(settings, duties)
            if not asyncio.run(_services_arrived(settings)):
                return 0
            worker, sending = _worker(app, settings), clock(app)
            liveness.watch(worker, sending)

            def begun(**_: Any) -> None:
                own.ready()
                if not chosen.no_beat:
                    sending.start()

            worker_ready.connect(begun, weak=False)
            worker.start()
            sending.stop()
            return int(worker.exitcode or 0)
    except ConfigurationError as error:
        refusal.end(error)


@asynccontextmanager
async def _seen(settings: Settings, liveness: Liveness) -> AsyncIterator[pulse.Pulse]:
    """Shows its metrics and its sign of life meanwhile."""
    async with (
        shown("background", _exposition, settings),
        pulse.beating("background", settings.inferstack_home, liveness) as own,
    ):
        yield own


async def _services_arrived(settings: Settings) -> bool:
    """Waits for what every duty needs; False if a signal came first.

    Celery would wait for its broker, too, but for ever if that refuses the password.

    Raises:
        ConfigurationError: a service refuses the credentials.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    urls = {"REDIS_URL": str(settings.redis_url)}
    # Celery takes other brokers, too; whether they answer it finds out itself.
    if (settings.celery_broker_url or "").startswith(("redis://", "rediss://")):
        urls["CELERY_BROKER_URL"] = str(settings.celery_broker_url)
    servers = {name: connect(url, max_connections=1, variable=name) for name, url in urls.items()}
    database = Database.from_settings(settings)
    needs = [arrival.queue(server, name) for name, server in servers.items()]
    needs += [arrival.database(database), arrival.objects(ObjectStore.from_settings(settings))]
    try:
        return await arrival.arrived(needs, stopping)
    finally:
        for server in servers.values():
            await server.aclose()
        await database.close()


def _worker(app: Celery, settings: Settings) -> Any:
    # It warns of root because of pickle, which is not accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    return app.Worker(
        # Duties wait for PostgreSQL and Redis: threads do, and no process has to be forked.
        pool="threads",
        concurrency=THREADS,
        queues=[QUEUE],
        loglevel=settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


def _exposition() -> bytes:
    return generate_latest(metrics.BACKGROUND)


if __name__ == "__main__":
    sys.exit(main())
