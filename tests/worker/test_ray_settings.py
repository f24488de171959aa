"""Where a local Ray keeps its files, and who may see them."""

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
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


@pytest.fixture(params=["home", "fallback"])
def place(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose Ray lies in it, or whose path is too long for that."""
    if request.param == "home":
        return home
    fallback = home / "tmp"
    fallback.mkdir()
    monkeypatch.setattr(ray_settings, "FALLBACK", fallback)
    return home / ("long" * 30)


def session(made: Path, pid: int) -> Path:
    path = made / f"session_2026-01-01_00-00-00_000000_{pid}"
    (path / "logs").mkdir(parents=True)
    return path


def test_what_earlier_runs_left_is_removed(place: Path) -> None:
    made = ray_settings.make_folder(settings(inferstack_home=place))
    ended = subprocess.Popen(["true"])
    ended.wait()
    session(made, ended.pid)
    session(made, os.getpid())  # in a container ids come again
    assert ray_settings.make_folder(settings(inferstack_home=place)) == made
    assert not list(made.iterdir())


def test_the_folder_of_a_ray_that_still_runs_stays_until_its_process_ended(place: Path) -> None:
    made = ray_settings.make_folder(settings(inferstack_home=place))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as running:
        kept = session(made, running.pid)
        ray_settings.make_folder(settings(inferstack_home=place))
        assert list(made.iterdir()) == [kept]
    ray_settings.make_folder(settings(inferstack_home=place))
    assert not list(made.iterdir())


def test_the_id_of_a_process_that_ended_may_be_that_of_a_younger_one(place: Path) -> None:
    made = ray_settings.make_folder(settings(inferstack_home=place))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as running:
        session(made, running.pid)
        later = made.stat().st_ctime + 60
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(psutil.Process, "create_time", lambda _: later)
            ray_settings.make_folder(settings(inferstack_home=place))
    assert not list(made.iterdir())


def test_a_cluster_asks_for_the_token_that_was_set() -> None:
    cluster = settings(ray_address="ray-head:10001", ray_auth_token="t" * 32)
    found = ray_settings.environment(cluster)
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN"] == "t" * 32
    other = ray_settings.environment(settings(ray_address="ray-head:10001"))
    assert "RAY_AUTH_MODE" not in other
