"""The files of the web UI, out of memory: a request never reaches the disk."""

import gzip
import logging
import mimetypes
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from inferstack.api.exchange import Handler, Headers, Request, Response
from inferstack.errors import NotFoundError

log = logging.getLogger(__name__)

INDEX = "/index.html"
HASHED = "/assets/"
"""Below this, a file's name changes with what is in it."""

OF_THE_API = ("/api", "/v1", "/v2", "/health", "/metrics")
"""No page of the UI is here: what the API does not know there is 404 for browsers, too."""

COMPRESSIBLE = 1024
"""Bytes from which on a text is worth compressing."""

SECURITY: Headers = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
]


class _File(NamedTuple):
    """One file, ready to send."""

    body: bytes
    packed: bytes | None
    """The body after gzip; None where that gains nothing."""
    etag: bytes
    headers: Headers


class Ui:
    """Answers what browsers ask for that is not the API."""

    def __init__(self, folder: Path | None) -> None:
        """Reads every file.

        Args:
            folder: what `npm run build` made, with an index.html; None for no UI.
        """
        self._files = _read(folder) if folder is not None else {}
        if folder is not None and INDEX not in self._files:
            log.warning("no web UI: there is no index.html in UI_PATH=%s", folder)
            self._files = {}

    def match(self, request: Request) -> Handler | None:
        """What answers a request; None if the API does."""
        path = request.path
        if not self._files or request.method != "GET" or _of_the_api(path):
            return None
        if path == "/" or path in self._files or _wants_page(request):
            return self.answer
        return None

    async def answer(self, request: Request) -> Response:
        """A file, or the page that finds its own way, whatever its path.

        Raises:
            NotFoundError: there is no such file.
        """
        path = request.path
        file = self._files.get(path)
        if file is None:
            if path.startswith(HASHED):
                raise NotFoundError(f"there is nothing at {path}")
            file = self._files[INDEX]
        if request.headers.get(b"if-none-match") == file.etag:
            return Response(304, file.headers[:], b"")
        headers = [*file.headers]
        if file.packed is not None and b"gzip" in request.headers.get(b"accept-encoding", b""):
            return Response(200, [*headers, (b"content-encoding", b"gzip")], file.packed)
        return Response(200, headers, file.body)


def _of_the_api(path: str) -> bool:
    return any(path == start or path.startswith(f"{start}/") for start in OF_THE_API)


def _wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, not a program for a resource."""
    return b"text/html" in request.headers.get(b"accept", b"")


def _read(folder: Path) -> dict[str, _File]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {f"/{path.relative_to(folder).as_posix()}": _file(path, folder) for path in paths}


def _file(path: Path, folder: Path) -> _File:
    body = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind in ("application/json", "image/svg+xml")
    # Weak: the same file goes out plain and compressed.
    etag = f'W/"{sha256(body).hexdigest()[:16]}"'.encode()
    hashed = f"/{path.relative_to(folder).as_posix()}".startswith(HASHED)
    headers: Headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode() if text else kind.encode()),
        (b"cache-control", b"public, max-age=31536000, immutable" if hashed else b"no-cache"),
        (b"etag", etag),
        (b"vary", b"accept-encoding"),
        *SECURITY,
    ]
    packed = gzip.compress(body, 9, mtime=0) if text and len(body) >= COMPRESSIBLE else None
    return _File(body, packed, etag, headers)
