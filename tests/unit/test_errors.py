"""Errors as their readers see them."""

import pytest

from inferstack import errors

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.InferstackError)
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_makes_problem_details(kind: type[errors.InferstackError]) -> None:
    problem = kind().problem("/api/x")
    assert problem["type"].endswith(kind.slug)
    assert problem["title"] == kind.title() == problem["detail"]
    assert 400 <= problem["status"] <= 599
    assert problem["instance"] == "/api/x"


def test_what_is_known_is_said() -> None:
    error = errors.QueueFullError("full", task_id="t", retry_after=2.5)
    problem = error.problem("/")
    assert (problem["detail"], problem["task_id"], problem["retry_after"]) == ("full", "t", 2.5)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_can_be_said_of_a_task(kind: type[errors.InferstackError]) -> None:
    field = {"field": "x", "message": "y"}
    error = kind("no", cause="host", retry_after=2.5, errors=[field])
    same = error.about("t")
    assert (type(same), str(same), error.task_id) == (kind, "no: host", None)
    assert same.problem("/") == error.problem("/") | {"task_id": "t"}


@pytest.mark.parametrize(
    "kind", [errors.DeploymentUnavailableError, errors.StorageUnavailableError]
)
def test_what_is_away_says_when_to_come_back(kind: type[errors.InferstackError]) -> None:
    assert kind().problem("/")["retry_after"] == 5.0
    assert kind(retry_after=2.0).problem("/")["retry_after"] == 2.0
    assert "retry_after" not in errors.NotFoundError().problem("/")
