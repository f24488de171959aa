"""How processes that share a port come and go."""

import errno
import select
import selectors
import socket
import subprocess
import sys

from inferstack.api.listener import bind, hand_over
from inferstack.config import Settings
from tests.services import free_port

CLIENTS = 64


def listening(port: int, processes: int = 2) -> socket.socket:
    listener = bind(Settings(port=port, api_processes=processes))
    listener.listen(CLIENTS)
    return listener


def accept(listener: socket.socket) -> list[socket.socket]:
    """Everything in its queue."""
    listener.setblocking(False)
    found = []
    while True:
        try:
            found.append(listener.accept()[0])
        except BlockingIOError:
            return found


def test_who_connects_after_a_listener_handed_over_reaches_another_one() -> None:
    """Half of them knock at the first, in vain, until it is closed; none is refused or reset."""
    port = free_port()
    first, second = listening(port), listening(port)
    before = socket.create_connection(("127.0.0.1", port))
    assert hand_over(first)
    clients = [socket.socket() for _ in range(CLIENTS)]
    with selectors.DefaultSelector() as selector:
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            selector.register(client, selectors.EVENT_WRITE)
        connected = len(selector.select(0.1))
        assert 0 < connected < CLIENTS
        accepted = accept(first)
        first.close()
        accepted += accept(second)
        assert len(accepted) == connected + 1
    for client in clients:
        # A second later the kernel tries again.
        select.select([], [client], [], 5)
        assert client.getpeername() == ("127.0.0.1", port)
    late = accept(second)
    assert len(late) == CLIENTS - connected
    for each in (before, second, *clients, *accepted, *late):
        each.close()


def test_who_connects_after_the_only_listener_handed_over_is_refused_and_not_reset() -> None:
    """So that a proxy knows that nobody has seen its request."""
    port = free_port()
    with listening(port, processes=1) as alone, socket.socket() as client:
        assert hand_over(alone)
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        assert not select.select([], [client], [], 0.1)[1]
        alone.close()
        assert select.select([], [client], [], 5)[1]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_a_process_may_open_as_many_files_as_the_system_allows() -> None:
    code = """
import resource
from inferstack.api.listener import raise_file_limit
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
