"""What Ray is told, and what the machine says of itself."""

import os
import stat
from pathlib import Path

import pytest

from inferstack.worker import gpu, ray_settings

from .fakes import settings


def test_a_local_ray_asks_for_a_token_and_keeps_to_loopback(tmp_path: Path) -> None:
    current = settings(inferstack_home=tmp_path / "home")
    environment = ray_settings.environment(current)
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    before = token.read_text()
    assert ray_settings.environment(current) == environment
    assert token.read_text() == before


def test_the_operator_of_a_cluster_decides_about_its_authentication(tmp_path: Path) -> None:
    current = settings(inferstack_home=tmp_path, ray_address="ray://head:10001")
    assert "RAY_AUTH_MODE" not in ray_settings.environment(current)
    assert list(tmp_path.iterdir()) == []


def test_sockets_of_ray_fit_into_the_limit_of_a_path(tmp_path: Path) -> None:
    short = settings(inferstack_home=Path("/tmp/h"))
    assert ray_settings.folder(short) == Path("/tmp/h/ray")
    deep = settings(inferstack_home=tmp_path / ("x" * 60))
    folder = ray_settings.folder(deep)
    assert len(os.fsencode(folder)) + ray_settings.INSIDE <= ray_settings.LONGEST_SOCKET_PATH


@pytest.mark.parametrize(
    ("content", "most"), [("150000 100000\n", 1), ("max 100000\n", 10_000), ("50000 100000\n", 1)]
)
def test_cores_respect_the_quota_of_the_container(tmp_path: Path, content: str, most: int) -> None:
    cgroup = tmp_path / "cpu.max"
    cgroup.write_text(content)
    assert 1 <= gpu.cores(cgroup) <= most


def test_gpus_are_listed_or_there_are_none() -> None:
    for found in gpu.gpus():
        assert found.memory_total > 0
        assert 0 <= found.utilisation <= 1
