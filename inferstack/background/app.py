"""The Celery application: what is due when."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from inferstack.background import duties
from inferstack.background.clock import Clock
from inferstack.background.liveness import UnderWay
from inferstack.config import Settings
from inferstack.errors import ConfigurationError, InferstackError
from inferstack.telemetry import metrics

log = logging.getLogger(__name__)

QUEUE = "background"
Duty = Callable[[Settings], Awaitable[int]]

DUTIES: dict[str, tuple[Duty, float]] = {
    "resend": (duties.resend, 60.0),
    "usage": (duties.roll_up, 300.0),
    "digest": (duties.digest, duties.DIGEST_PERIOD),
    "retention": (duties.remove_old, 3600.0),
    "orphans": (duties.remove_orphans, 86400.0),
}
"""Name, duty, and the seconds between two turns."""
CLOCKS = 3600.0
"""Seconds that the clock of a worker may be ahead of that which sends."""


def create_app(settings: Settings, under_way: UnderWay | None = None) -> Celery:
    """The application of one worker.

    Args:
        settings: for the broker and the duties.
        under_way: notes which duties run.

    Raises:
        ConfigurationError: there is neither CELERY_BROKER_URL nor REDIS_URL.
    """
    under_way = under_way or UnderWay(1)
    broker = broker_url(settings)
    app = Celery("inferstack", broker=broker, set_as_current=False)
    app.conf.update(
        # Without it kombu takes any certificate, and shows the password to whoever has one.
        broker_use_ssl=broker.startswith("rediss://") and {"ssl_cert_reqs": ssl.CERT_REQUIRED},
        accept_content=["json"],
        task_serializer="json",
        task_default_queue=QUEUE,
        task_ignore_result=True,
        # At once: a lost message costs a turn, and kombu ends a worker whose broker went away while
        # it held one.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # What a failover answers is one, and no reason to end.
        broker_channel_error_retry=True,
        broker_transport_options={
            "global_keyprefix": "is:celery:",
            "socket_keepalive": True,
            # Without them a broker that hangs would hold the clock.
            "socket_connect_timeout": 5.0,
            "socket_timeout": 10.0,
            "health_check_interval": 30,
        },
        enable_utc=True,
    )
    for name, (duty, every) in DUTIES.items():
        metrics.DUTY_PERIOD.labels(name).set(every)
        # One that never succeeds is late, too: it counts from here.
        metrics.DUTY_SUCCESS.labels(name).set_to_current_time()
        app.task(_runner(name, duty, settings, under_way), name=name, shared=False)
    return app


def clock(app: Celery) -> Clock:
    """Sends each duty when it is due; one that nobody took for long after its turn is dropped.

    Celery compares the sender's clock with the worker's: with no room for a difference, a worker
    whose clock is a minute ahead would drop every duty of that period.
    """
    periods = {name: every for name, (_, every) in DUTIES.items()}
    return Clock(lambda name: app.send_task(name, expires=periods[name] + CLOCKS), periods)


def broker_url(settings: Settings) -> str:
    """Where messages go: CELERY_BROKER_URL, or the queue's Redis.

    Raises:
        ConfigurationError: neither is set, or Celery does not know such a broker.
    """
    url = settings.celery_broker_url or settings.redis_url
    if url is None:
        raise ConfigurationError("neither CELERY_BROKER_URL nor REDIS_URL is set")
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in TRANSPORT_ALIASES:
        raise ConfigurationError("CELERY_BROKER_URL is not a URL of a broker; it takes redis://...")
    return url


def _runner(name: str, duty: Duty, settings: Settings, under_way: UnderWay) -> Callable[[], Any]:
    def run() -> int:
        seconds = metrics.DUTY_SECONDS.labels(name)
        try:
            with under_way.one(), seconds.time(), failures.count_exceptions():
                items = asyncio.run(_run(duty, settings))
        except InferstackError as error:
            # Nothing is lost: the next turn does what this one did not.
            log.warning("%s waits for its next turn: %s", name, error)
            return 0
        metrics.DUTY_ITEMS.labels(name).inc(items)
        metrics.DUTY_SUCCESS.labels(name).set_to_current_time()
        return items

    failures = metrics.DUTY_FAILURES.labels(name)
    return run


async def _run(duty: Duty, settings: Settings) -> int:
    return await duty(settings)
