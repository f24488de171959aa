"""Ray and Serve themselves: joined or started, asked, ended."""

import logging
from functools import partial
from typing import Any

from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.wording import summary
from inferstack.worker import ray_settings, ray_token

log = logging.getLogger(__name__)


ENDING = 5.0
"""Seconds beyond the drain of its replicas that Serve itself may take to end."""


def start(settings: Settings) -> None:
    """Joins or starts a Ray cluster.

    Raises:
        ConfigurationError: RAY_ADDRESS is none, nobody answers there, or our token is refused.
    """
    ray_token.check(settings)
    import ray
    from ray.exceptions import AuthenticationError

    local = settings.ray_address is None
    try:
        ray.init(
            address=settings.ray_address or "local",
            namespace="inferstack",
            include_dashboard=False if local else None,
            log_to_driver=True,
            logging_level=logging.WARNING,
            **ray_settings.options(settings) if local else {},
        )
    except (ValueError, ConnectionError, AuthenticationError) as error:
        if local:
            raise
        # Also a token that Ray has found elsewhere, in a file of its own.
        if isinstance(error, AuthenticationError) or "InvalidAuthToken" in str(error.__cause__):
            raise ray_token.refused(settings) from error
        problem = f"RAY_ADDRESS={settings.ray_address}: {summary(error)}"
        raise ConfigurationError(problem) from error
    from ray import serve

    # At any other level, Serve tells each failure in a hundred lines; its replicas tell it in one.
    level = "DEBUG" if settings.log_level == "DEBUG" else "CRITICAL"
    # What Serve says in this process, in a format of its own, is that it was called.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(proxy_location="Disabled", logging_config={"log_level": level})


def given_up() -> list[str]:
    """Deployments that Serve does not try to start any more."""
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    applications = serve.status().applications
    failed = ApplicationStatus.DEPLOY_FAILED
    return [name for name, found in applications.items() if found.status == failed]


def stop(grace: float) -> None:
    """Drains every replica and, if it is ours, ends Ray.

    Args:
        grace: seconds that the replicas may take.
    """
    import ray
    from ray import serve
    from ray.serve import context

    if not ray.is_initialized():
        return  # Serve would start it to end it
    # Serve waits for 30 s, however long its replicas may take, and has no setting for that (2.60,
    # `client.py`). With the end of Ray they would be killed.
    internals: Any = context
    client = internals._get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        client.shutdown = partial(client.shutdown, timeout_s=grace + ENDING)
    untyped: tuple[Any, ...] = (serve, ray)
    for part in untyped:
        part.shutdown()
    log.info("all replicas have ended")
