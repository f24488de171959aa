"""What is said of a cluster that cannot be joined; tests/faults/test_machines.py joins one."""

from typing import Any

import pytest
import ray
from ray.exceptions import AuthenticationError

from inferstack.errors import ConfigurationError
from inferstack.worker import ray_cluster
from tests.worker.fakes import settings


def refused() -> ConnectionError:
    """As Ray raises it after 20 attempts, whose last one is in a text of its own."""
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:10001")
    error.__cause__ = RuntimeError(
        "Failed to connect to GCS. Last connection error: Traceback (most recent call last):\n"
        "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: Authentication token is "
        "missing or incorrect."
    )
    return error


@pytest.mark.parametrize(
    "raised", [AuthenticationError("no authentication token was found"), refused()]
)
def test_a_token_that_ray_looks_for_by_itself_and_that_is_none_is_told_in_one_line(
    raised: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise raised

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ConfigurationError) as caught:
        ray_cluster.start(settings(ray_address="ray-head:10001"))
    assert str(caught.value) == (
        "RAY_AUTH_TOKEN is not set, and Ray at ray-head:10001 asks for a token: "
        "it takes that of the cluster's head"
    )
