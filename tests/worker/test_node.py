"""Programs of machines, one by one; tests/faults/test_machines.py has several of them work."""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest

from inferstack.concurrency import end
from inferstack.config import Settings, as_environment
from inferstack.engines.model_config import ModelConfig
from inferstack.engines.repository import ModelEntry
from inferstack.errors import ConfigurationError
from inferstack.telemetry import pulse
from inferstack.worker import gpu, node, ray_fleet, ray_token
from inferstack.worker.placement import Placement
from tests.services import free_port

from .fakes import settings as make_settings
from .machines import Machines, machines


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A path that is short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="is-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def cluster(temporary: Path, tmp_path: Path) -> Iterator[Machines]:
    settings = make_settings(
        ray_address=f"127.0.0.1:{free_port()}", ray_auth_token="a-token-of-the-tests-own"
    )
    with machines(settings, temporary, tmp_path) as found:
        yield found


async def test_a_machine_that_waits_for_the_head_is_not_ready_and_ends_at_once(
    cluster: Machines, tmp_path: Path
) -> None:
    member = cluster.member("alone")
    async with asyncio.timeout(20):
        while "waiting for Ray" not in cluster.log("alone"):
            await asyncio.sleep(0.05)
    assert pulse.alive("node", tmp_path / "alone")
    assert not pulse.alive("node", tmp_path / "alone", ready=True)
    member.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(member.wait, 5) == 0


def test_an_address_that_is_none_ends_the_process_in_one_line() -> None:
    environment = {**as_environment(make_settings()), "RAY_ADDRESS": "ray-head:0"}
    command = [sys.executable, "-m", "inferstack.worker.node"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == "RAY_ADDRESS=ray-head:0: it takes host:port of the cluster's head\n"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ray-head",
        "ray://ray-head:port",
        ":1",
        "ray://ray-head:10001",
        "ray-head:99999",
        f"{'h' * 64}:1",
    ],
)
def test_an_address_that_is_none_is_named(address: str) -> None:
    settings = make_settings(ray_address=address or None)
    with pytest.raises(ConfigurationError) as refused:
        node.Node(settings, node._options([]))
    assert str(refused.value) == f"RAY_ADDRESS={address}: it takes host:port of the cluster's head"


def test_a_head_that_would_let_anybody_in_does_not_start() -> None:
    """Whoever reaches a Ray without a token runs what he likes on all machines."""
    settings = make_settings(ray_address=f"127.0.0.1:{free_port()}")
    command = [sys.executable, "-m", "inferstack.worker.node", "--head"]
    done = subprocess.run(
        command,
        env=as_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("RAY_AUTH_TOKEN is not set")


@pytest.mark.parametrize("address", [None, "ray-head:10001"])
async def test_replicas_are_placed_though_ray_did_not_answer_at_first(
    address: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_fleet, "LOOK", 0.01)
    fleet = ray_fleet.Fleet([], make_settings(ray_address=address), print)
    looks, placed = 0, asyncio.Event()
    loop = asyncio.get_running_loop()

    def place() -> None:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise RuntimeError("the controller starts again")
        loop.call_soon_threadsafe(placed.set)

    monkeypatch.setattr(fleet, "place", place)
    following = asyncio.create_task(fleet.follow())
    for _ in range(2):
        await asyncio.wait_for(placed.wait(), 10)
        placed.clear()
        fleet.add([])
    await end(following)
    assert caplog.text.count("cannot place replicas") == 1


HEAD = "ray-head:10001"


def fleet_of(*configs: ModelConfig, **options: Any) -> tuple[ray_fleet.Fleet, list[str]]:
    """One that may place models `a:1`, `b:1` and so on, and what it reports."""
    entries = [ModelEntry(n, 1, Path(n), each) for n, each in zip("abc", configs, strict=False)]
    settings, reports = make_settings(**options), list[str]()
    fleet = ray_fleet.Fleet(entries, settings, lambda *said: reports.append(": ".join(said)))
    fleet.add(entries)
    return fleet, reports


def test_a_model_without_room_on_the_only_machine_is_reported_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu, "visible", lambda: ["0"])
    fleet, reports = fleet_of(ModelConfig(engine="python", num_gpus=2))
    fleet.place()
    assert len(reports) == 1
    assert reports[0].startswith("a:1: each replica needs 2 GPUs of one machine, 1 are left")


@pytest.mark.parametrize("autoscaling", [False, True])
def test_a_model_without_room_waits_for_machines_to_join_before_it_is_reported(
    autoscaling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(engine="python", num_gpus=2)
    fleet, reports = fleet_of(config, ray_address=HEAD, ray_autoscaling=autoscaling)
    started: list[str] = []
    monkeypatch.setattr(fleet, "_start", started.extend)
    monkeypatch.setattr(fleet, "_devices", lambda: ([1, 1], 8))
    fleet.place()
    assert (started, reports) == ([], [])
    monkeypatch.setattr(ray_fleet, "JOINING", 0.0)
    fleet.place()
    # Where machines are added for replicas that wait, there must be one that does.
    assert (started, len(reports)) == (["a:1"] * autoscaling, 1)
    monkeypatch.setattr(fleet, "_devices", lambda: ([2, 1, 1], 8))
    fleet.place()
    assert (started, len(reports)) == (["a:1"] * (1 + autoscaling), 1)


def test_replicas_restart_with_another_share_only_once_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = ModelConfig(engine="transformers", task="sentence-embedding")
    fleet, _ = fleet_of(*[text] * 2, ray_address=HEAD)
    started: list[dict[str, float]] = []
    now = 0.0

    def start(placements: Mapping[str, Placement]) -> None:
        started.append({name: each.num_gpus for name, each in placements.items()})

    def looks(after: float, *machines: int) -> list[dict[str, float]]:
        nonlocal now
        now += after
        monkeypatch.setattr(fleet, "_devices", lambda: (list(machines), 8))
        started.clear()
        fleet.place()
        return started

    monkeypatch.setattr(fleet, "_start", start)
    monkeypatch.setattr("inferstack.worker.ray_fleet.time.monotonic", lambda: now)
    whole, half = {"a:1": 1.0, "b:1": 1.0}, {"a:1": 0.5, "b:1": 0.5}
    assert looks(0, 1, 1) == [whole]
    # A machine that is back soon has stopped nothing, however often it goes.
    for _ in range(3):
        assert looks(1, 1) == []
        assert looks(40, 1) == []
        assert looks(1, 1, 1) == []
    assert looks(1, 1) == []
    assert looks(60, 1) == [half]
    assert looks(1, 1, 1, 1) == []
    assert looks(60, 1, 1, 1) == [whole]


async def test_each_worker_takes_a_gpu_that_no_other_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "visible", lambda: ["0", "2"])
    monkeypatch.setattr(node, "RETRY", 0.05)
    options = node._options(["--gpu-locks", str(tmp_path)])
    workers = [node.Node(make_settings(ray_address="h:1"), options) for _ in range(3)]
    assert await workers[0].claim(tmp_path) == "0"
    assert await workers[1].claim(tmp_path) == "2"
    third = asyncio.create_task(workers[2].claim(tmp_path))
    await asyncio.wait({third}, timeout=0.2)
    assert not third.done()
    workers[0].release()
    assert await asyncio.wait_for(third, 5) == "0"
    for worker in workers:
        worker.release()
    with (tmp_path / "gpu-0").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("visible", "locks", "shown"),
    [
        (["0", "2"], False, ("--num-gpus=2", "0,2")),
        (["0", "2"], True, ("--num-gpus=1", "0")),
        ([], True, ("--num-gpus=0", "")),
        ([], False, (None, None)),  # Ray knows accelerators that NVML does not
    ],
)
async def test_ray_gets_the_gpus_that_a_machine_lends_and_no_others(
    visible: list[str],
    locks: bool,
    shown: tuple[str | None, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawned: list[tuple[Sequence[str], dict[str, str]]] = []

    async def spawn(_: str, command: Sequence[str], own: dict[str, str]) -> None:
        spawned.append((command, own))

    monkeypatch.setattr(gpu, "visible", lambda: visible)
    member = node.Node(
        make_settings(ray_address="h:1"),
        node._options(["--gpu-locks", str(tmp_path)] if locks else []),
    )
    monkeypatch.setattr(member, "_answers", AsyncMock(return_value=True))
    monkeypatch.setattr(ray_token, "check", print)
    monkeypatch.setattr(member, "_spawn", spawn)
    await member._start_member()
    ((command, own),) = spawned
    found = next((option for option in command if option.startswith("--num-gpus")), None)
    assert (found, own.get("CUDA_VISIBLE_DEVICES")) == shown
    member.release()


async def test_a_container_shows_the_gpu_that_it_lends_and_itself_before_it_lends_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usages = [gpu.GpuUsage(number, "GPU", 0.5) for number in range(2)]
    monkeypatch.setattr(gpu, "gpus", lambda: usages)
    monkeypatch.setattr(node, "RETRY", 0.05)
    monkeypatch.setattr(ray_token, "check", print)
    options = node._options(["--gpu-locks", str(tmp_path), "--ray", "sleep 100"])
    with (
        (tmp_path / "gpu-0").open("w") as first,
        (tmp_path / "gpu-1").open("w") as second,
        socket.create_server(("127.0.0.1", 0)) as ray,
    ):
        for taken in (first, second):
            fcntl.flock(taken, fcntl.LOCK_EX)
        address = f"127.0.0.1:{ray.getsockname()[1]}"
        settings = make_settings(
            ray_address=address, metrics_port=free_port(), inferstack_home=tmp_path
        )
        running = asyncio.create_task(node.Node(settings, options).run())
        page = await scraped(settings, "process_open_fds{")
        assert "gpu_utilization{" not in page
        second.close()
        page = await scraped(settings, "gpu_utilization{")
        assert page.count("gpu_utilization{") == page.count('gpu="1"') == 1
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 20) == 0


async def scraped(settings: Settings, sample: str) -> str:
    """What a machine shows, once a sample is in it."""
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.TransportError):
                found = await client.get(f"http://127.0.0.1:{settings.metrics_port}/metrics")
                if sample in found.text:
                    return found.text
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("option", "shown"), [("--head", 0), ("--ray=ray", 2)])
def test_a_head_shows_no_gpu_and_a_machine_that_shares_with_no_other_all_it_sees(
    option: str, shown: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usages = [gpu.GpuUsage(number, "GPU", 0.5) for number in range(2)]
    monkeypatch.setattr(gpu, "gpus", lambda: usages)
    settings = make_settings(ray_address="h:1", ray_auth_token="a-token-of-the-tests")
    machine = node.Node(settings, node._options([option]))
    assert machine._metrics().count(b"gpu_utilization{") == shown


@pytest.mark.parametrize("role", [["--head"], []])
def test_a_machine_tells_ray_the_address_that_it_was_given(role: list[str]) -> None:
    settings = make_settings(ray_address="h:1", ray_auth_token="a-token-of-the-tests")
    told = node.Node(settings, node._options([*role, "--node-ip-address=192.168.1.10"]))
    assert "--node-ip-address=192.168.1.10" in told.ray_command()
    untold = node.Node(settings, node._options(role))
    assert "--node-ip-address" not in " ".join(untold.ray_command())


def test_no_port_of_the_head_is_one_that_ray_gives_to_its_workers() -> None:
    settings = make_settings(ray_address="ray-head:10001", ray_auth_token="a-token-of-the-tests")
    head = node.Node(settings, node._options(["--head"]))
    ports = re.findall(r"--\S*port=(\d+)", " ".join(head.ray_command()))
    assert len(ports) == len(set(ports)) == 3
    assert not [port for port in ports if 10002 <= int(port) <= 19999]
