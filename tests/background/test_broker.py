"""How Celery reaches its broker."""

import ssl

from inferstack.background.app import create_app
from inferstack.config import load


def test_a_broker_with_tls_must_show_a_good_certificate() -> None:
    for url in ("rediss://:secret@broker:6379/0", "rediss://broker:6379/0"):
        connection = create_app(load(redis_url=url)).connection_for_write()
        assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_a_broker_without_tls_is_not_asked_for_one() -> None:
    connection = create_app(load(redis_url="redis://broker:6379/0")).connection_for_write()
    assert not connection.ssl
