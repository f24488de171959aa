"""Which version takes a request."""

import pytest

from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import DeploymentUnavailableError, ModelNotFoundError
from inferstack.routing import resolve

READY, STARTING, FAILED = DeploymentState.READY, DeploymentState.STARTING, DeploymentState.FAILED


def versions(*states: DeploymentState) -> list[Deployment]:
    return [Deployment(model="m", version=i, state=s) for i, s in enumerate(states, 1)]


@pytest.mark.parametrize(
    ("states", "chosen"),
    [
        ((READY,), 1),
        ((READY, READY), 2),
        ((READY, STARTING), 1),
        ((READY, FAILED), 1),
        ((STARTING, FAILED), 1),
        ((STARTING, STARTING), 2),
    ],
)
def test_without_a_version_the_highest_ready_one_is_taken(
    states: tuple[DeploymentState, ...], chosen: int
) -> None:
    assert resolve(versions(*states), "m", None).version == chosen


def test_a_named_version_is_taken_even_while_it_starts() -> None:
    assert resolve(versions(READY, STARTING), "m", 2).version == 2


def test_an_unknown_model_or_version_is_named() -> None:
    with pytest.raises(ModelNotFoundError, match="no model 'x'"):
        resolve(versions(READY), "x", None)
    with pytest.raises(ModelNotFoundError, match="no version 3; it has 1, 2"):
        resolve(versions(READY, READY), "m", 3)


def test_a_failed_deployment_says_why() -> None:
    broken = Deployment(model="m", version=1, state=FAILED, reason="no weights")
    for version in (None, 1):
        with pytest.raises(DeploymentUnavailableError, match="no weights"):
            resolve([broken], "m", version)
