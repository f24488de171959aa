"""The socket that an API process listens on, and how it gives it up."""

import ctypes
import resource
import socket
import struct
import sys
from contextlib import suppress

from inferstack.config import Settings
from inferstack.errors import ConfigurationError

SO_ATTACH_FILTER = 26
"""Of Linux; Python has no name for it."""

# Classic BPF (Linux, Documentation/networking/filter.rst), each: code, jump if true, jump if
# false, operand. Byte 13 of a TCP header holds its flags; a packet that opens a connection has SYN
# (2) set and ACK (16) not.
NO_NEW_CONNECTION = (
    (0x30, 0, 0, 13),  # load that byte
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFF),  # take everything else
)


def bind(settings: Settings) -> socket.socket:
    """The listening socket; with several API processes, one that all of them can bind.

    Raises:
        ConfigurationError: the address is in use or not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.api_processes > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}; set HOST or PORT"
        ) from None
    return listener


def hand_over(listener: socket.socket) -> bool:
    """Takes no new connection from now on.

    The kernel resets what is left in the queue of connections of a socket that is closed, also when
    other processes share its port: each has its own queue. So the socket first stops to see
    attempts to connect. Clients repeat them by themselves, and once it is closed they reach another
    process, or are refused, which tells a proxy that it may send the request elsewhere.

    Returns:
        Whether it worked; it does on Linux.
    """
    if sys.platform != "linux":
        return False
    program = b"".join(struct.pack("HBBI", *line) for line in NO_NEW_CONNECTION)
    buffer = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HP", len(NO_NEW_CONNECTION), ctypes.addressof(buffer))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    except OSError:
        return False
    return True


def raise_file_limit() -> None:
    """Lets this process hold as many connections as the system allows; shells start with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says infinity and means less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
