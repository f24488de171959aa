"""Where a local Ray keeps its files, and who may see them."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferstack.worker import ray_settings
from tests.worker.fakes import settings


@pytest.fixture
def home() -> Iterator[Path]:
    """A path that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="is-") as folder:
        yield Path(folder)


def test_nobody_else_can_get_to_the_folder_that_ray_opens_to_all(home: Path) -> None:
    made = ray_settings.make_folder(settings(inferstack_home=home))
    made.chmod(0o777)  # as Ray does
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700


def test_what_earlier_runs_left_is_removed(home: Path) -> None:
    made = ray_settings.make_folder(settings(inferstack_home=home))
    (made / "session_2026-01-01" / "logs").mkdir(parents=True)
    ray_settings.make_folder(settings(inferstack_home=home))
    assert not list(made.iterdir())


def test_a_cluster_asks_for_the_token_that_was_set() -> None:
    cluster = settings(ray_address="ray-head:10001", ray_auth_token="t" * 32)
    found = ray_settings.environment(cluster)
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN"] == "t" * 32
    other = ray_settings.environment(settings(ray_address="ray-head:10001"))
    assert "RAY_AUTH_MODE" not in other
