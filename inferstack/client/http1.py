"""Just enough of HTTP/1.1 (RFC 9112) to tell where an answer ends."""

from typing import NamedTuple

from inferstack.errors import InferstackError

MAX_HEAD = 64 * 1024
NO_BODY = frozenset({204, 304})
COME_BACK = frozenset({429, 503})
"""Statuses with which a server asks its client to come back later."""


class ProtocolError(InferstackError):
    """The server's answer is not HTTP/1.1."""

    slug = "protocol-error"


class Frame(NamedTuple):
    """One complete answer at the start of a buffer."""

    status: int
    end: int
    """Bytes it takes."""
    close: bool
    """Whether the server closes the connection after it."""
    retry_after: bool = False
    """Whether the server is busy and says when to come back."""


def frame(buffer: bytes, closed: bool = False) -> Frame | None:
    """Measures the answer that a buffer starts with.

    Args:
        buffer: what has arrived and was not used yet.
        closed: whether the server has closed the connection, so that no more will come.

    Returns:
        None if the answer is not complete yet.

    Raises:
        ProtocolError: this is no HTTP/1.x answer, or its head is too long.
    """
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        if len(buffer) > MAX_HEAD or (buffer[:5] and not b"HTTP/".startswith(buffer[:5])):
            raise ProtocolError("an answer has no HTTP/1.x head")
        return None
    status_text = buffer[9:12]
    if not buffer.startswith(b"HTTP/1.") or not status_text.isdigit():
        raise ProtocolError(f"an answer starts with {buffer[:20]!r}")
    status, head, body = int(status_text), buffer[:head_end].lower() + b"\r\n", head_end + 4
    if 100 <= status < 200:
        rest = frame(buffer[body:], closed)
        return rest and rest._replace(end=rest.end + body)
    close = b"\r\nconnection: close" in head or head.startswith(b"http/1.0")
    end = _body_end(buffer, head, body, status, closed)
    retry_after = status in COME_BACK and b"\r\nretry-after:" in head
    return None if end is None else Frame(status, end, close, retry_after)


def _body_end(buffer: bytes, head: bytes, body: int, status: int, closed: bool) -> int | None:
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        text = head[at + 17 : head.index(b"\r\n", at + 2)].strip()
        if not text.isdigit():
            raise ProtocolError(f"content-length is {text!r}")
        end = body + int(text)
        return end if end <= len(buffer) else None
    if status in NO_BODY:
        return body
    if b"\r\ntransfer-encoding: chunked" in head or b"\r\ntransfer-encoding:chunked" in head:
        return _chunked_end(buffer, body)
    return len(buffer) if closed else None


def _chunked_end(buffer: bytes, at: int) -> int | None:
    while (line_end := buffer.find(b"\r\n", at)) >= 0:
        try:
            size = int(buffer[at:line_end].split(b";", 1)[0], 16)
        except ValueError:
            raise ProtocolError("a chunk has no size") from None
        if size == 0:
            trailer_end = buffer.find(b"\r\n\r\n", line_end)
            return None if trailer_end < 0 else trailer_end + 4
        at = line_end + 2 + size + 2
    return None
