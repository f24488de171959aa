"""Dockerfiles: linted, and built and run with buildah on stand-ins for their base images.

Buildah needs no daemon and no registry, but root and Debian's `buildah` and `mmdebstrap`. Where it
cannot run, those tests are skipped, and say so. The image with the models takes minutes and several
gigabytes: it is built when SMOKE_IMAGES=all (`make images`).
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from tests.deployment.files import ROOT
from tests.programs import program
from tests.services import PostgresServer, RedisServer, create_database, free_port

DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
SECRETS = {
    "SECRET_KEY": "0123456789abcdef" * 4,
    "ADMIN_PASSWORD": "a password of the tests",
    "RAY_AUTH_TOKEN": "fedcba9876543210" * 4,
}
STANDIN = "localhost/standin"
NPM = "../lib/node_modules/npm/bin/npm-cli.js"
everything = pytest.mark.skipif(
    os.environ.get("SMOKE_IMAGES") != "all",
    reason="this image takes minutes, or gigabytes: `make images` builds it",
)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_dockerfile_has_no_known_fault(path: Path) -> None:
    done = subprocess.run([program("hadolint"), path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_is_pinned_unprivileged_and_checked(path: Path) -> None:
    text = path.read_text()
    for image in re.findall(r"^ARG \w+_IMAGE=(\S+)", text, re.MULTILINE):
        assert re.search(r":\D*\d+\.\d+", image), image
    final = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
    assert "\nHEALTHCHECK " in final
    assert not re.search(r"^ADD ", text, re.MULTILINE)
    assert len(re.findall(r"^RUN ", final, re.MULTILINE)) <= 1


def _cannot() -> str | None:
    """Why buildah cannot run here."""
    missing = [name for name in ("buildah", "mmdebstrap") if shutil.which(name) is None]
    if missing:
        return f"no {' and no '.join(missing)}: apt-get install buildah mmdebstrap"
    if os.geteuid() != 0:
        return "changing the root folder takes root"
    return None


class Buildah:
    """Images and containers in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def command(self, *arguments: str) -> list[str]:
        store = ["--root", str(self._folder / "root"), "--runroot", str(self._folder / "run")]
        return ["buildah", *store, "--storage-driver", "vfs", *arguments]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    def stand_in(self) -> None:
        """A Debian with Python and NGINX, in the place of every base image."""
        tar = self._folder / "base.tar"
        packages = "python3,python3-venv,ca-certificates,nginx-light,wget"
        release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
        assert release is not None
        command = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={packages}", release[1]]
        subprocess.run(
            [*command, str(tar)], check=True, env={**os.environ, "TMPDIR": str(self._folder)}
        )
        container = self("from", "scratch")
        self("add", "--quiet", container, str(tar))
        # Debian's Node.js is too old for the UI: this machine's is mounted when it is built.
        self("run", "--isolation", "chroot", container, "--", "ln", "-s", NPM, "/usr/bin/npm")
        self("commit", "--quiet", "--rm", container, STANDIN)
        tar.unlink()

    def build(self, name: str, **arguments: str) -> str:
        """Builds an image; returns a container of it."""
        options = ["--format", "docker", "--isolation", "chroot", "--pull-never", "--quiet"]
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        for path in _package_settings():
            options += ["--volume", f"{path}:{path}:ro"]
        image = f"localhost/{name}"
        self("bud", *options, "-t", image, "-f", f"docker/{name}.Dockerfile", ".")
        return self("from", "--pull-never", image)

    def settings(self, name: str) -> dict[str, Any]:
        found = json.loads(self("inspect", "--type", "image", f"localhost/{name}"))
        config: dict[str, Any] = found["Docker"]["config"]
        return config

    def run(self, container: str, *command: str, **environment: str) -> list[str]:
        """How to run a program in a container, on the network of this machine."""
        options = [
            part for key, value in environment.items() for part in ("--env", f"{key}={value}")
        ]
        return self.command("run", "--isolation", "chroot", *options, container, "--", *command)


def _package_settings() -> Iterator[Path]:
    """Where this machine says from where packages come, and whom to trust; its Node.js."""
    python = ("/etc/pip.conf", "/etc/ssl/certs", "/etc/resolv.conf", "/opt/wheels")
    node = ("/usr/bin/node", "/usr/lib/node_modules", "/usr/etc/npmrc")
    for name in (*python, *node):
        if Path(name).exists():
            yield Path(name)


def _place() -> str | None:
    """Memory, if there is enough: Debian's installer syncs each file, and vfs copies them all."""
    memory = Path("/dev/shm")
    if os.environ.get("SMOKE_IMAGES") == "all" or not memory.is_dir():
        return None
    return str(memory) if shutil.disk_usage(memory).free > 4e9 else None


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    if reason := _cannot():
        pytest.skip(f"BUILDAH CANNOT RUN HERE, SO NO IMAGE WAS BUILT: {reason}")
    with tempfile.TemporaryDirectory(dir=_place(), prefix="buildah-") as folder:
        found = Buildah(Path(folder))
        found.stand_in()
        yield found
        found("rm", "--all")


class Running:
    """A program in a container."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def stop(self) -> int:
        """Sends SIGTERM to the program itself; returns its exit status."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        program = next(child for child in children if child.name().startswith("python"))
        program.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
            self.process.kill()
            self.process.wait()
        print(self.log.read_text()[-4000:])


@pytest.fixture
def stores() -> Iterator[dict[str, str]]:
    """Real ones, reached as a container on this network reaches them."""
    with RedisServer() as queue, PostgresServer() as database:
        yield {"REDIS_URL": queue.url, "DATABASE_URL": create_database(database.url)}


def _answers(url: str, running: Running) -> httpx.Response:
    deadline = time.monotonic() + 60
    while True:
        try:
            found = httpx.get(url, timeout=2, trust_env=False)
            if found.status_code == 200:
                return found
        except httpx.HTTPError:
            pass
        assert running.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(900)
def test_the_api_and_the_recorder_run_from_their_image(
    buildah: Buildah, stores: dict[str, str], tmp_path: Path
) -> None:
    container = buildah.build("api", PYTHON_IMAGE=STANDIN)
    own = {"ENVIRONMENT": "production", **stores}

    def inside(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
        full = buildah.run(container, *command, **{**own, **more})
        return subprocess.run(full, capture_output=True, text=True, check=False)

    assert inside("id", "-u").stdout.strip() == "10001"
    refused = inside("python", "-P", "-m", "inferstack.api", HOST="0.0.0.0")
    assert refused.returncode == 1
    assert "HOST=0.0.0.0 is reachable from outside" in refused.stdout + refused.stderr
    assert inside("inferstack", "migrate").returncode == 0

    port = free_port()
    served = {"HOST": "127.0.0.1", "PORT": str(port), "AUTH_REQUIRED": "true", **SECRETS}
    command = buildah.settings("api")["Cmd"]
    api = Running(buildah.run(container, *command, **own, **served), tmp_path / "api.log")
    recorder = Running(
        buildah.run(container, "python", "-P", "-m", "inferstack.recorder", **own),
        tmp_path / "recorder.log",
    )
    try:
        _answers(f"http://127.0.0.1:{port}/health/ready", api)
        check = buildah.settings("api")["Healthcheck"]["Test"]
        assert inside(*check[1:], **served).returncode == 0
        login = {"username": "admin", "password": SECRETS["ADMIN_PASSWORD"]}
        url = f"http://127.0.0.1:{port}/api/auth/login"
        assert httpx.post(url, json=login, trust_env=False).status_code == 200
        pulse = ("python", "-P", "-m", "inferstack.telemetry.pulse")
        assert inside(*pulse, "recorder", "--ready").returncode == 0
        assert inside(*pulse, "node").returncode == 1
        assert api.stop() == 0
        assert recorder.stop() == 0
    finally:
        api.kill()
        recorder.kill()


@pytest.mark.timeout(3000)
@everything
def test_a_cluster_runs_from_the_image_with_the_models(
    buildah: Buildah, stores: dict[str, str], tmp_path: Path
) -> None:
    container = buildah.build("gpu-worker", BASE_IMAGE=STANDIN)
    own = {
        **{"ENVIRONMENT": "production", "REDIS_URL": stores["REDIS_URL"]},
        **{"RAY_AUTH_TOKEN": SECRETS["RAY_AUTH_TOKEN"]},
        "RAY_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    node = ("python", "-P", "-m", "inferstack.worker.node")
    head = Running(buildah.run(container, *node, "--head", **own), tmp_path / "head.log")
    member = Running(buildah.run(container, *node, **own), tmp_path / "member.log")
    try:
        with redis.Redis.from_url(stores["REDIS_URL"]) as client:
            deadline = time.monotonic() + 180
            while not client.zcard("is:{minilm:1}:live"):
                assert head.process.poll() is None
                assert member.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.5)
        check = buildah.settings("gpu-worker")["Healthcheck"]["Test"]
        assert subprocess.run(buildah.run(container, *check[1:], **own)).returncode == 0
    finally:
        head.kill()
        member.kill()


@everything
@pytest.mark.timeout(900)
def test_the_gateway_with_the_ui_runs_from_its_image(buildah: Buildah, tmp_path: Path) -> None:
    container = buildah.build("frontend", NODE_IMAGE=STANDIN, NGINX_IMAGE=STANDIN)
    port = free_port()
    own = {
        **{"GATEWAY_HTTP": f"127.0.0.1:{port}", "GATEWAY_API": f"127.0.0.1:{free_port()}"},
        # Here stdout is a file of root's; Docker and Kubernetes give it to the user of the image.
        **{"GATEWAY_ACCESS_LOG": "/tmp/access.log", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    }
    settings = buildah.settings("frontend")
    gateway = Running(buildah.run(container, *settings["Cmd"], **own), tmp_path / "gateway.log")
    try:
        url = f"http://127.0.0.1:{port}"
        assert _answers(f"{url}/gateway/live", gateway).json() == {"status": "healthy"}
        page = httpx.get(url, trust_env=False)
        assert page.headers["content-type"].startswith("text/html")
        (script,) = re.findall(r'src="(/assets/[^"]+)"', page.text)
        assert httpx.get(url + script, trust_env=False).status_code == 200
        # No API process runs here.
        assert httpx.get(f"{url}/api/models", trust_env=False).status_code == 502
        assert settings["User"] == "101:101"
    finally:
        gateway.kill()
