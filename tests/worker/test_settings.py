"""What Ray is told, and what the machine says of itself."""

import os
import shutil
import stat
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pynvml
import pytest

from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.telemetry.exposure import shown
from inferstack.telemetry.peers import Peers, folder_for
from inferstack.worker import gpu, measures, ray_settings

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
    assert ray_settings.folder(short) == Path("/tmp/h/ray/s")
    deep = settings(inferstack_home=tmp_path / ("x" * 60))
    folder = ray_settings.folder(deep)
    assert len(os.fsencode(folder)) + ray_settings.INSIDE <= ray_settings.LONGEST_SOCKET_PATH


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the folder of a Ray goes whose home has a long path."""
    monkeypatch.setattr(ray_settings, "FALLBACK", tmp_path)
    return tmp_path / f"inferstack-ray-{os.getuid()}"


def deep(tmp_path: Path) -> Settings:
    return settings(inferstack_home=tmp_path / ("x" * 100))


def test_the_folder_of_ray_is_for_its_user_only(tmp_path: Path, elsewhere: Path) -> None:
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        assert ray_settings.make_folder(settings(inferstack_home=home)) == home / "ray" / "s"
        assert stat.S_IMODE((home / "ray").stat().st_mode) == 0o700
    finally:
        shutil.rmtree(home)
    elsewhere.mkdir(mode=0o777)
    for _ in range(2):
        assert ray_settings.make_folder(deep(tmp_path)) == elsewhere / "s"
        assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o700


def test_a_folder_that_somebody_else_made_for_ray_is_refused(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o755)
    elsewhere.symlink_to(target)
    with pytest.raises(ConfigurationError, match="is not a folder of this user"):
        ray_settings.make_folder(deep(tmp_path))
    elsewhere.unlink()
    elsewhere.mkdir(mode=0o755)
    owner = os.getuid()
    monkeypatch.setattr("os.getuid", lambda: owner + 1)
    elsewhere.rename(elsewhere.with_name(f"inferstack-ray-{owner + 1}"))
    with pytest.raises(ConfigurationError, match=f"inferstack-ray-{owner + 1} is not a folder"):
        ray_settings.make_folder(deep(tmp_path))


@pytest.mark.parametrize(
    ("content", "most"), [("150000 100000\n", 1), ("max 100000\n", 10_000), ("50000 100000\n", 1)]
)
def test_cores_respect_the_quota_of_the_container(tmp_path: Path, content: str, most: int) -> None:
    cgroup = tmp_path / "cpu.max"
    cgroup.write_text(content)
    assert 1 <= gpu.cores(cgroup) <= most


def test_gpus_are_listed_or_there_are_none() -> None:
    for found in gpu.gpus():
        assert found.memory_total is None or found.memory_total > 0
        assert 0 <= found.utilisation <= 1


class Silent:
    """NVML of a GPU that tells its name only, as one that shares the memory of the machine."""

    NVMLError = ValueError
    NVML_TEMPERATURE_GPU = 0

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"GPU {handle}"

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object) -> None:
            raise ValueError("Not Supported")

        return refuse


def test_a_gpu_that_tells_nothing_of_itself_is_counted_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = gpu._usage(cast(ModuleType, Silent()), 0)
    talking = gpu.GpuUsage(1, "GPU", 0.5, 7, 9)
    monkeypatch.setattr(gpu, "gpus", lambda: [silent, talking])
    text = measures.of_devices().decode()
    assert 'gpu_utilization{gpu="0",name="GPU 0"} 0.0' in text
    lines = [line for line in text.splitlines() if line.startswith("gpu_memory_total")]
    assert lines == ['gpu_memory_total{gpu="1",name="GPU"} 9.0']


class Machine:
    """NVML of a machine with some GPUs, of which some are lost."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, count: int, *lost: int) -> None:
        self.count, self.lost = count, lost

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "GPU"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}abc"

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object) -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

        return refuse


def test_a_lost_gpu_is_left_out_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpu, "pynvml", Machine(3, 1))
    monkeypatch.setattr(gpu, "_told_lost", set())
    assert gpu.visible() == ["0", "2"]
    text = measures.of_devices().decode()
    assert 'gpu_utilization{gpu="2",name="GPU"} 0.0' in text
    assert 'gpu="1"' not in text
    assert [record.message for record in caplog.records] == ["GPU 1 is left out: GPU is lost"]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (None, ["0", "1", "3"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("3, 1", ["3", "1"]),
        ("2,3", ["3"]),  # 2 is lost
        ("0,7", ["0"]),
        ("GPU-1", ["1"]),
        ("MIG-1a2b,MIG-3c4d", ["MIG-1a2b", "MIG-3c4d"]),
    ],
)
def test_replicas_get_the_gpus_that_cuda_visible_devices_names(
    named: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "pynvml", Machine(4, 2))
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpu.visible() == expected


@pytest.mark.parametrize(
    ("device", "named", "expected"),
    [
        ("cuda:0", None, "cuda:0"),
        ("cuda:0", "2", "cuda:2"),
        ("cuda:1", "2,3", "cuda:3"),
        ("cuda", "2,3", "cuda:2"),
        ("cuda:0", "MIG-1a2b", "cuda:0"),
        ("cpu", "2", "cpu"),
        ("auto", "2", "auto"),
    ],
)
def test_a_replica_names_its_gpu_as_the_machine_does(
    device: str, named: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpu.on_machine(device) == expected


def test_a_local_ray_gets_the_gpus_that_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "pynvml", Machine(4, 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3")
    current = settings(inferstack_home=tmp_path)
    assert ray_settings.environment(current)["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert ray_settings.options(current)["num_gpus"] == 2


def test_a_machine_without_gpus_is_told_nothing_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu, "pynvml", Machine(0))
    current = settings(inferstack_home=tmp_path)
    assert "CUDA_VISIBLE_DEVICES" not in ray_settings.environment(current)
    assert gpu.visible() == []


async def test_an_api_process_gathers_the_metrics_of_replicas_and_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = gpu.GpuUsage(1, "GPU", 0.5, 7, 9)
    monkeypatch.setattr(gpu, "gpus", lambda: [usage])
    current = settings(inferstack_home=tmp_path)
    api = Peers(folder_for(tmp_path), "api", lambda: b"")
    async with (
        shown("replica", measures.of_replica, current),
        shown("worker", measures.of_devices, current),
    ):
        text = (await api.gather()).decode()
    name = f"worker-{os.getpid()}"
    assert f'gpu_utilization{{process="{name}",gpu="1",name="GPU"}} 50.0' in text
    assert f'gpu_memory_used{{process="{name}",gpu="1",name="GPU"}} 7.0' in text
    assert f'process_open_fds{{process="replica-{os.getpid()}"}}' in text
    assert "process_open_fds" not in (await api.gather()).decode()
    folder_for(tmp_path).rmdir()
