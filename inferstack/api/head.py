"""What the head of a request may be."""

from inferstack.api.exchange import Headers
from inferstack.errors import BadRequestError, HeadersTooLargeError, UrlTooLongError

MAX_HEAD = 64 * 1024
"""Bytes of a URL and all header fields together."""

MAX_FIELDS = 256
"""Header fields: far more than proxies and browsers send."""

MAX_URL = 8 * 1024
"""Bytes of a URL."""

UPGRADES = frozenset({b"upgrade", b"http2-settings"})
"""Fields, and options of `Connection`, by which a client offers another protocol."""


def check_head(url: bytes, headers: Headers) -> None:
    """Lets a head pass that is worth looking at.

    Args:
        url: as sent.
        headers: names in lower case.

    Raises:
        UrlTooLongError: the URL is too long.
        HeadersTooLargeError: there are too many fields, or too many bytes.
        BadRequestError: `Host` is there more than once (RFC 9112 3.2).
    """
    if len(url) > MAX_URL:
        raise UrlTooLongError(f"the URL has {len(url)} bytes; it takes {MAX_URL}")
    if len(headers) > MAX_FIELDS:
        raise HeadersTooLargeError(f"there are more than {MAX_FIELDS} header fields")
    size, hosts = len(url), 0
    for name, value in headers:
        size += len(name) + len(value)
        hosts += name == b"host"
    if size > MAX_HEAD:
        raise HeadersTooLargeError(f"URL and header fields have more than {MAX_HEAD} bytes")
    if hosts > 1:
        raise BadRequestError("there is more than one Host field")


def plain_head(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """The head of a request again, without the offer to speak another protocol.

    A server may ignore the offer (RFC 9110 7.8), but the parser takes it as the end of HTTP.
    """
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            value = b", ".join(option for option in options if option.lower() not in UPGRADES)
        if name not in UPGRADES and (value or name != b"connection"):
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
