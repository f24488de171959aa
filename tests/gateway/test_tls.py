"""TLS and HTTP/2, with every NGINX that is here."""

import json
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator

import httpx
import pytest

from tests.gateway.gateway import PATIENCE, Gateway, problem, send
from tests.gateway.stack import Replicated
from tests.gateway.tls import Certificate
from tests.programs import nginx_programs

Headers = dict[str, str]

MARK = "--- "
PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=["oldest", "newest"])
def gateway(
    request: pytest.FixtureRequest, stack: Replicated, certificate: Certificate
) -> Iterator[Gateway]:
    """Images have a newer NGINX than Debian, where HTTP/2 is turned on in another way."""
    program = nginx_programs()[-1 if request.param == "oldest" else 0]
    with Gateway(*stack.addresses, GATEWAY_NGINX=program, **certificate.variables) as running:
        yield running


def test_http_2_carries_a_request_to_the_api(
    gateway: Gateway, certificate: Certificate, caller: Headers
) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "no curl: apt-get install curl"
    headers = caller | {
        "content-type": "application/json",
        "prefer": "wait=10",
        "x-request-id": "two",
    }
    done = subprocess.run(
        [
            *(curl, "--silent", "--show-error", "--http2", "--cacert", str(certificate.file)),
            *(part for name, value in headers.items() for part in ("-H", f"{name}: {value}")),
            *("--data", '{"data": {"payload": "over HTTP/2"}}'),
            *("--write-out", MARK + "%{http_version} %{http_code}"),
            f"https://localhost:{gateway.tls_port}/api/inference",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    body, _, said = done.stdout.partition(MARK)
    assert said == "2 200", done
    task = json.loads(body)
    assert task["result"]["payload"] == "over HTTP/2"
    line = gateway.logged("two")
    assert line["protocol"] == "HTTP/2.0"
    assert line["tls"] == "TLSv1.3"


@pytest.mark.parametrize(
    ("protocol", "spoken"),
    [
        (ssl.TLSVersion.TLSv1_1, None),
        (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ],
)
def test_tls_is_1_2_or_newer(
    gateway: Gateway, certificate: Certificate, protocol: ssl.TLSVersion, spoken: str | None
) -> None:
    context = certificate.context()
    # Without this OpenSSL itself would not offer what is old.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = protocol
    with socket.create_connection(("127.0.0.1", gateway.tls_port), PATIENCE) as plain:
        if spoken is None:
            with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
                context.wrap_socket(plain, server_hostname="localhost")
        else:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                assert connection.version() == spoken


def test_who_comes_without_tls_is_sent_there(gateway: Gateway, certificate: Certificate) -> None:
    with httpx.Client(verify=certificate.context(), trust_env=False) as client:
        plain = client.post(f"{gateway.url}/api/inference?wait=1", content=b"{}")
        assert plain.status_code == 308
        assert plain.headers["location"] == "https://127.0.0.1/api/inference?wait=1"
        assert "strict-transport-security" not in plain.headers
        secure = client.get(f"https://127.0.0.1:{gateway.tls_port}/health/live")
        assert secure.status_code == 200
        assert secure.headers["strict-transport-security"] == "max-age=31536000"
    wrong = send(gateway.tls_port, PLAIN)
    assert wrong.status_code == 400
    assert problem(wrong)["type"].endswith("/bad-request")
