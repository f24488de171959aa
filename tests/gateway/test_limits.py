"""What the gateway keeps away from the API: floods, large bodies, slow clients."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from tests.gateway.gateway import PATIENCE, Gateway, problem, wait_for
from tests.gateway.stack import Replicated

Headers = dict[str, str]

HEAD = b"POST /api/inference HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"


def _begin(gateway: Gateway, start: bytes) -> socket.socket:
    """A client that has sent so much and no more."""
    client = socket.create_connection(("127.0.0.1", gateway.port), PATIENCE)
    client.sendall(start)
    return client


def test_an_address_that_sends_too_fast_gets_429(stack: Replicated) -> None:
    with (
        Gateway(*stack.addresses, GATEWAY_RATE=1, GATEWAY_BURST=3) as gateway,
        gateway.http() as client,
    ):
        answers = [client.get("/health/live") for _ in range(40)]
        assert [answer.status_code for answer in answers[:4]] == [200] * 4
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused
        for answer in refused:
            assert answer.status_code == 429
            assert problem(answer)["type"].endswith("/too-many-requests")
        # Those who are refused together do not all come back together.
        told = [int(answer.headers["retry-after"]) for answer in refused]
        assert set(told) == {1, 2}
        # It is told the truth; the clock of NGINX goes by milliseconds.
        time.sleep(min(told) + 0.01)
        assert client.get("/health/live").status_code == 200


def test_an_address_with_too_many_requests_under_way_gets_429(stack: Replicated) -> None:
    with (
        Gateway(*stack.addresses, GATEWAY_CONNECTIONS=2) as gateway,
        gateway.http() as client,
        ExitStack() as under_way,
    ):
        begun = 0

        def refuses_one_more() -> bool:
            """One may be refused itself, while a request from before it is still counted."""
            nonlocal begun
            begun += 1
            under_way.enter_context(_begin(gateway, HEAD + b"\r\n{"))
            return client.get("/health/live").status_code == 429

        wait_for(refuses_one_more)
        assert begun >= 2
        refused = client.get("/health/live")
        assert refused.status_code == 429
        assert problem(refused)["type"].endswith("/too-many-requests")
        under_way.close()
        wait_for(lambda: client.get("/health/live").status_code == 200)


def test_logins_are_limited_more_than_the_rest(gateway: Gateway) -> None:
    with gateway.http() as client:
        wrong = {"username": "admin"}
        answers = [client.post("/api/auth/login", json=wrong) for _ in range(30)]
        assert {answer.status_code for answer in answers[:21]} == {422}
        assert answers[-1].status_code == 429
        assert problem(answers[-1])["type"].endswith("/too-many-requests")
        assert client.get("/health/live").status_code == 200


def test_a_body_may_be_as_large_as_at_the_api_and_not_larger(
    gateway: Gateway, stack: Replicated, caller: Headers
) -> None:
    start, rest = b'{"data":{"payload":"', b'"}}'
    fits = start + b"x" * (stack.settings.max_body_bytes - len(start) - len(rest)) + rest
    through, direct = f"{gateway.url}/api/inference", f"{stack.url}/api/inference"
    with gateway.http(**caller, **{"content-type": "application/json"}) as client:
        assert client.post(through, content=fits).status_code == 202
        refused = client.post(through, content=fits + b" ")
        assert refused.status_code == 413
        # The same answer as from the API.
        assert problem(refused) == client.post(direct, content=fits + b" ").json()
        # Nobody says here how large it will be.
        assert client.post(through, content=_chunks(fits)).status_code == 202
        assert client.post(through, content=_chunks(fits + b" ")).status_code == 413


def _chunks(body: bytes) -> Iterator[bytes]:
    yield from (body[:1000], body[1000:])


def test_slow_clients_are_cut_off_while_others_go_on(stack: Replicated) -> None:
    with (
        Gateway(*stack.addresses, GATEWAY_TIMEOUT=1) as gateway,
        gateway.http() as other,
    ):
        slow = [_begin(gateway, start) for start in (HEAD, HEAD + b"\r\n{") * 20]
        begun = time.monotonic()
        waiting = set(slow)
        while waiting:
            assert other.get("/health/live").status_code == 200
            waiting -= {client for client in waiting if _cut_off(client)}
            assert time.monotonic() - begun < 5
        assert time.monotonic() - begun > 0.5
        for client in slow:
            client.close()
        wait_for(lambda: len(_posts(gateway)) >= 20)
        # The API has not seen any of them.
        assert {line["upstream"] for line in _posts(gateway)} == {""}


def _posts(gateway: Gateway) -> list[dict[str, Any]]:
    return [line for line in gateway.log() if line["method"] == "POST"]


def _cut_off(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return not client.recv(1000)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
