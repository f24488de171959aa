"""Where the metrics of a process are, and how Prometheus gets to know."""

import asyncio
import contextlib
import json
import resource
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inferstack.config import Settings, load
from inferstack.telemetry import discovery, endpoint, peers
from inferstack.telemetry.aside import aside
from inferstack.telemetry.endpoint import MOST_HEAD
from inferstack.telemetry.exposure import Exposure, shown
from tests.services import free_port

PAGE = b"# HELP a A.\n# TYPE a gauge\na 1.0\n"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    # Whoever ends as the last one leaves nothing behind.
    with pytest.raises(FileNotFoundError):
        peers.folder_for(tmp_path, make=False)


def settings(home: Path, **more: object) -> Settings:
    return load(inferstack_home=home, **more)


def targets(home: Path) -> dict[str, str]:
    """Addresses by service, as Prometheus reads them."""
    found = {}
    for path in discovery.folder(home).glob("*.json"):
        (entry,) = json.loads(path.read_bytes())
        (found[entry["labels"]["service"]],) = entry["targets"]
    return found


async def get(address: str, path: str = "/metrics", method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(method, f"http://{address}{path}")


async def raw(address: str, request: bytes) -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        return await reader.read(-1)
    finally:
        writer.close()


async def test_a_process_is_found_while_it_lives_and_not_later(home: Path) -> None:
    async with shown("recorder", lambda: PAGE, settings(home)):
        (path,) = discovery.folder(home).glob("*.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        answer = await get(targets(home)["recorder"])
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert answer.content == PAGE
        address = targets(home)["recorder"]
    assert targets(home) == {}
    with pytest.raises(httpx.ConnectError):
        await get(address)


def test_a_process_without_an_event_loop_is_found_too(home: Path) -> None:
    with aside(shown("background", lambda: PAGE, settings(home))):
        address = targets(home)["background"]
        assert httpx.get(f"http://{address}/metrics", trust_env=False).content == PAGE
    assert targets(home) == {}
    assert "aside" not in {thread.name for thread in threading.enumerate()}


async def test_only_the_page_is_answered(home: Path) -> None:
    async with shown("recorder", lambda: PAGE, settings(home)):
        address = targets(home)["recorder"]
        assert (await get(address, "/")).status_code == 404
        assert (await get(address, method="POST")).status_code == 405
        assert (await get(address, "/metrics?x=1")).content == PAGE
        assert await raw(address, b"x" * (MOST_HEAD + 100)) == b""
        assert (await get(address)).content == PAGE


async def test_who_says_nothing_does_not_outlive_the_end(home: Path) -> None:
    async with shown("recorder", lambda: PAGE, settings(home)):
        host, port = targets(home)["recorder"].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_who_has_just_connected_does_not_outlive_the_end(home: Path, turns: int) -> None:
    with socket.socket() as client:
        async with shown("recorder", lambda: PAGE, settings(home)):
            host, port = targets(home)["recorder"].split(":")
            client.connect((host, int(port)))
            for _ in range(turns):
                await asyncio.sleep(0)
        client.settimeout(1.0)
        with contextlib.suppress(ConnectionError):
            assert client.recv(1) == b""


async def test_a_process_without_a_file_to_spare_answers_once_it_has_one(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endpoint, "AGAIN", 0.02)
    loop = asyncio.get_running_loop()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        async with shown("recorder", lambda: PAGE, settings(home)):
            host, port = targets(home)["recorder"].split(":")
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, files[1]))
            try:
                await loop.sock_connect(client, (host, int(port)))
                async with asyncio.timeout(10):
                    while caplog.text.count("Too many open files") < 2:
                        await asyncio.sleep(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, files)
            await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\n\r\n")
            assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 OK")


async def test_a_page_that_cannot_be_made_is_an_error_and_no_end(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = [PAGE]
    async with shown("recorder", lambda: pages.pop(), settings(home)):
        address = targets(home)["recorder"]
        assert (await get(address)).status_code == 200
        assert (await get(address)).status_code == 500
        assert "cannot show the metrics" in caplog.text
        pages.append(PAGE)
        assert (await get(address)).status_code == 200


async def test_processes_of_a_machine_share_a_port_and_any_answers_for_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    both = settings(home, metrics_port=port)
    monkeypatch.setattr("os.getpid", lambda: 1)
    first = Exposure("worker", lambda: PAGE, both)
    await first.start()
    monkeypatch.setattr("os.getpid", lambda: 2)
    async with shown("replica", lambda: PAGE, both):
        for _ in range(8):
            text = (await get(f"127.0.0.1:{port}")).text
            assert 'a{process="worker-1"} 1.0' in text
            assert 'a{process="replica-2"} 1.0' in text
    await first.stop()
    assert targets(home) == {}


async def test_a_port_in_use_is_told_and_keeps_nobody_from_serving(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        exposure = Exposure("recorder", lambda: PAGE, settings(home, metrics_port=port))
        await exposure.start()
        assert f"no metrics on 127.0.0.1:{port}" in caplog.text
        assert b'process="recorder-' in await exposure.machine()
        await exposure.stop()


async def test_a_home_that_does_not_exist_is_not_made(home: Path) -> None:
    async with shown("recorder", lambda: PAGE, settings(home / "none")):
        assert not (home / "none").exists()


async def test_what_killed_processes_left_is_swept(home: Path) -> None:
    async with shown("recorder", lambda: PAGE, settings(home)):
        dead = discovery.announce(home, "replica", "127.0.0.1", free_port())
        assert dead is not None
        # This process has one name here, and two files.
        dead.rename(dead.with_name("replica-0.json"))
        (discovery.folder(home) / "odd.json").write_text("[]")
        await asyncio.to_thread(discovery.sweep, home)
        assert set(targets_left(home)) == {"recorder", "odd"}


def targets_left(home: Path) -> list[str]:
    return [path.stem.split("-")[0] for path in discovery.folder(home).glob("*.json")]


def test_an_address_of_ipv6_is_written_as_prometheus_takes_it(home: Path) -> None:
    path = discovery.announce(home, "api", "::1", 9)
    assert path is not None
    assert json.loads(path.read_bytes())[0]["targets"] == ["[::1]:9"]
