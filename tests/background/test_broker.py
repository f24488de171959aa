"""How Celery reaches its broker."""

import json
import ssl
import time
from datetime import datetime

import redis

from inferstack.background.app import DUTIES, QUEUE, clock, create_app
from inferstack.config import load
from tests.patience import until


def test_a_broker_with_tls_must_show_a_good_certificate() -> None:
    for url in ("rediss://:secret@broker:6379/0", "rediss://broker:6379/0"):
        connection = create_app(load(redis_url=url)).connection_for_write()
        assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_a_broker_without_tls_is_not_asked_for_one() -> None:
    connection = create_app(load(redis_url="redis://broker:6379/0")).connection_for_write()
    assert not connection.ssl


def test_a_duty_is_done_by_a_worker_whose_clock_is_nearly_an_hour_ahead(
    clean_redis_url: str,
) -> None:
    app = create_app(load(redis_url=clean_redis_url))
    sending = clock(app)
    sending.start()
    with app, redis.Redis.from_url(clean_redis_url) as broker:
        key = f"is:celery:{QUEUE}"
        try:
            until(lambda: broker.llen(key) == len(DUTIES))
        finally:
            sending.stop()
        for message in broker.lrange(key, 0, -1):
            headers = json.loads(message)["headers"]
            left = datetime.fromisoformat(headers["expires"]).timestamp() - time.time()
            assert 3500 < left < 3700 + DUTIES[headers["task"]][1]
