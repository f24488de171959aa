"""A real Prometheus, something with GPU series for it to scrape, and a collector of spans."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.programs import ServiceMissingError
from tests.services import _Server

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "monitoring" / "prometheus"


def program(name: str) -> str:
    """`prometheus` or `promtool`.

    Raises:
        ServiceMissingError: it is not on PATH.
    """
    found = shutil.which(name)
    if found is None:
        raise ServiceMissingError(f"no {name}: apt-get install prometheus brings it")
    return found


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs promtool to its end."""
    command = [program("promtool"), *arguments]
    return subprocess.run(
        command, cwd=CONFIG, capture_output=True, text=True, timeout=60, check=False
    )


def relabelled(name: str) -> list[dict[str, Any]]:
    """What a configuration does to the labels of the DCGM exporter."""
    config = yaml.safe_load((CONFIG / name).read_text())
    (dcgm,) = [job for job in config["scrape_configs"] if job["job_name"] == "dcgm"]
    found: list[dict[str, Any]] = dcgm["metric_relabel_configs"]
    return found


class Prometheus(_Server):
    """Prometheus with the rules and the discovery of monitoring/prometheus, in a hurry."""

    name = "prometheus"

    def __init__(self, home: Path, exporter: str) -> None:
        """Writes its configuration.

        Args:
            home: of the stack to find.
            exporter: address of one more target.
        """
        super().__init__()
        config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(CONFIG / "rules" / "*.yml")]
        (found,) = [job for job in config["scrape_configs"] if job["job_name"] == "inferstack"]
        (discovery,) = found["file_sd_configs"]
        (path,) = discovery["files"]
        # As in the file, but for the home: the folder and the pattern are what is tested.
        discovery["files"] = [str(home / Path(path).relative_to("../../.inferstack"))]
        discovery["refresh_interval"] = "1s"
        gpus = {
            "job_name": "gpus",
            "static_configs": [{"targets": [exporter]}],
            "metric_relabel_configs": relabelled("prometheus.compose.yml"),
        }
        config["scrape_configs"] = [found, gpus]
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(config))

    def query(self, expr: str) -> list[dict[str, Any]]:
        """What an expression gives now.

        Raises:
            AssertionError: Prometheus does not take it.
        """
        answer = self._get("query", query=expr)
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def alertmanagers(self) -> list[str]:
        """The addresses that it sends alerts to."""
        found = self._get("alertmanagers")["data"]["activeAlertmanagers"]
        return [each["url"] for each in found]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health."""
        groups = self._get("rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        answer: dict[str, Any] = httpx.get(
            url, params=parameters, trust_env=False, verify=False
        ).json()
        return answer

    def _command(self) -> list[str]:
        return [
            program("prometheus"),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        try:
            url = f"http://127.0.0.1:{self.port}/-/ready"
            return httpx.get(url, trust_env=False, verify=False).status_code == 200
        except httpx.TransportError:
            return False


class _Handler(BaseHTTPRequestHandler):
    """Answers without a line on stderr."""

    def log_message(self, *_: object) -> None:
        return

    def reply(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def exporter(page: bytes) -> Iterator[str]:
    """The address of a server that answers everything with one page."""

    class Handler(_Handler):
        def do_GET(self) -> None:
            self.reply("text/plain; version=0.0.4", page)

    with _serving(Handler) as address:
        yield address


@contextmanager
def collector(spans: list[dict[str, Any]]) -> Iterator[str]:
    """The address of a server that takes spans, each with the name of its service.

    Args:
        spans: where they go.
    """

    class Handler(_Handler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            for resource in body["resourceSpans"]:
                (name,) = resource["resource"]["attributes"]
                service = name["value"]["stringValue"]
                for scope in resource["scopeSpans"]:
                    spans.extend({"service": service, **span} for span in scope["spans"])
            self.reply("application/json", b"{}")

    with _serving(Handler) as address:
        yield address


@contextmanager
def _serving(handler: type[_Handler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
