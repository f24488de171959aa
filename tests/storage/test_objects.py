import json
import socket
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from inferstack.config import load
from inferstack.errors import NotFoundError, StorageRefusedError, StorageUnavailableError
from inferstack.storage.objects import ObjectStore
from tests.services import S3Server, free_port

ACCESS, SECRET = S3Server.access, S3Server.secret


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server in front of a folder with one bucket."""
    with S3Server() as server:
        yield server.url


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return ObjectStore.from_settings(load(inferstack_home=tmp_path / "home %20"))
    endpoint = request.getfixturevalue("s3_endpoint")
    return ObjectStore.from_settings(
        load(s3_endpoint=endpoint, s3_access_key=ACCESS, s3_secret_key=SECRET)
    )


@pytest.mark.parametrize("body", [b"", b"x", bytes(range(256)) * 40_000])
async def test_a_body_comes_back(store: ObjectStore, body: bytes) -> None:
    await store.put("tasks/a/input.json", body)
    assert await store.get("tasks/a/input.json") == body


async def test_writing_a_key_again_replaces_it(store: ObjectStore) -> None:
    await store.put("k", b"1")
    await store.put("k", b"2")
    assert await store.get("k") == b"2"


async def test_a_missing_key_is_not_found(store: ObjectStore) -> None:
    with pytest.raises(NotFoundError, match="nothing-here"):
        await store.get("nothing-here")


async def test_deleting_is_idempotent(store: ObjectStore) -> None:
    await store.put("d/1", b"1")
    await store.put("d/2", b"2")
    await store.delete(["d/1", "d/2", "d/3"])
    await store.delete(["d/1"])
    with pytest.raises(NotFoundError):
        await store.get("d/2")


async def test_every_key_is_listed(store: ObjectStore) -> None:
    keys = {f"listed/{n}/input.json" for n in range(3)}
    for key in keys:
        await store.put(key, b"x")
    assert keys <= {key async for key in store.all_keys()}


async def test_old_keys_below_another_are_listed(store: ObjectStore) -> None:
    for key in ("below/1/x", "below/2/x", "below/2/y", "below/3/x", "other/1/x"):
        await store.put(key, b"x")
    now, hour = datetime.now(UTC), timedelta(hours=1)
    found = {key async for key in store.old_keys("below", "below/2/y", now + hour)}
    assert found == {"below/1/x", "below/2/x"}
    assert not [key async for key in store.old_keys("below", "below/2/y", now - hour)]
    assert not [key async for key in store.old_keys("nothing", "z", now + hour)]


async def test_a_store_that_answers_is_healthy(store: ObjectStore) -> None:
    await store.check()


async def test_wrong_keys_are_refused_in_one_line_that_names_them(s3_endpoint: str) -> None:
    store = ObjectStore.from_settings(
        load(s3_endpoint=s3_endpoint, s3_access_key=ACCESS, s3_secret_key="wrong-secret-here")
    )
    for attempt in (store.put("k", b"1"), store.check()):
        with pytest.raises(StorageRefusedError, match=r"^S3_ACCESS_KEY, S3_SECRET_KEY: ") as caught:
            await attempt
        assert "\n" not in caught.value.detail


async def test_a_bucket_that_is_not_there_is_no_healthy_store(s3_endpoint: str) -> None:
    store = ObjectStore.from_settings(
        load(
            s3_endpoint=s3_endpoint,
            s3_access_key=ACCESS,
            s3_secret_key=SECRET,
            s3_bucket="not-there",
        )
    )
    calls = (store.check(), store.get("x"), store.size("x"), store.put("x", b"1"))
    for call in (*calls, store.delete(["x"])):
        with pytest.raises(StorageUnavailableError, match=r"^S3_BUCKET cannot be listed: ") as told:
            await call
        assert "\n" not in told.value.detail


async def test_no_server_is_storage_unavailable() -> None:
    store = ObjectStore.from_settings(
        load(
            s3_endpoint=f"http://127.0.0.1:{free_port()}",
            s3_access_key=ACCESS,
            s3_secret_key=SECRET,
        )
    )
    with pytest.raises(StorageUnavailableError):
        await store.check()


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = load(
            s3_endpoint=f"http://127.0.0.1:{port}", s3_access_key=ACCESS, s3_secret_key=SECRET
        )
        store = ObjectStore.from_settings(settings, patience=0.2)
        for attempt in (store.put("k", b"1"), store.get("k"), store.size("k"), store.check()):
            with pytest.raises(StorageUnavailableError, match=r"did not answer within 0\.2 s"):
                await attempt


async def test_a_key_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(load(inferstack_home=tmp_path / "home"))
    with pytest.raises(ValueError, match="illegal"):
        await store.put("../../outside", b"x")
    assert not (tmp_path / "outside").exists()


async def test_a_folder_that_cannot_be_written_is_storage_unavailable(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(load(inferstack_home=tmp_path))
    (tmp_path / "objects" / "taken").write_text("a file where a folder is needed")
    with pytest.raises(StorageUnavailableError):
        await store.put("taken/x", b"x")


@pytest.mark.parametrize("before", [None, 0o755])
async def test_nobody_else_may_look_into_the_folder(tmp_path: Path, before: int | None) -> None:
    folder = tmp_path / "home" / "objects"
    if before is not None:
        folder.mkdir(parents=True)
        folder.chmod(before)
    ObjectStore.from_settings(load(inferstack_home=tmp_path / "home"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_home_that_is_a_file_is_storage_unavailable(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StorageUnavailableError):
        ObjectStore.from_settings(load(inferstack_home=tmp_path / "home"))


async def test_no_empty_folder_stays_behind(tmp_path: Path) -> None:
    store = ObjectStore.from_settings(load(inferstack_home=tmp_path))
    await store.put("tasks/a/input.json", b"1")
    await store.put("tasks/a/result-1.json", b"1")
    await store.delete(["tasks/a/input.json"])
    assert await store.get("tasks/a/result-1.json") == b"1"
    await store.delete(["tasks/a/result-1.json"])
    assert list((tmp_path / "objects").iterdir()) == []
    await store.put("tasks/b/input.json", b"1")


class PodIdentity(BaseHTTPRequestHandler):
    """Hands out keys as the agent of EKS pod identity does, to whoever shows the pod's token."""

    def do_GET(self) -> None:
        allowed = self.headers["Authorization"] == "token-of-the-pod"
        body = {
            "AccessKeyId": ACCESS,
            "SecretAccessKey": SECRET if allowed else "wrong",
            "Token": "",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


async def test_a_pod_on_aws_needs_no_keys(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("token-of-the-pod")
    with HTTPServer(("127.0.0.1", 0), PodIdentity) as agent:
        threading.Thread(target=agent.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{agent.server_port}/v1/credentials"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
        store = ObjectStore.from_settings(load(s3_endpoint=s3_endpoint))
        await store.put("k", b"1")
        assert await store.get("k") == b"1"
        agent.shutdown()
