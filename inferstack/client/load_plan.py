"""What the load generator is to send, and when."""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from urllib.parse import urlsplit

import msgspec

from inferstack.errors import ConfigurationError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
ROUNDING = 1e-9
"""What floating point may add to a number of requests."""


class Step(msgspec.Struct, frozen=True):
    """A fixed rate for a while."""

    seconds: float
    rate: float
    """Requests per second."""

    @property
    def count(self) -> int:
        """Requests that are due."""
        return math.ceil(self.seconds * self.rate - ROUNDING)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, how fast and for how long."""

    url: str
    bodies: Sequence[bytes] = ()
    """JSON bodies, sent in turn with POST; GET without a body if empty."""
    headers: dict[str, str] = {}
    connections: int = 64
    duration: float = 10.0
    """Seconds during which requests are sent."""
    rate: float | None = None
    """Requests per second; None keeps every connection busy."""
    steps: Sequence[Step] = ()
    """One rate after the other, without a pause, all of it counted; `duration`, `rate` and
    `warm_up` say nothing then."""
    warm_up: float = 0.0
    """Seconds at the start that are sent but not counted."""
    timeout: float = 30.0
    """Seconds to wait for what is still under way when sending ends."""
    patience: float | None = None
    """Seconds for which a request that is due waits for a free connection before it is given up.

    While there is no connection at all, requests fail with `unreachable` and the server is tried
    again. None sends each request however late, and stops once the server is gone.
    """
    max_requests: int = 5_000_000
    allow_remote: bool = False
    """Whether the server may be another machine than this one."""
    stop_at_problem: bool = False
    """Whether the first refusal of a request itself (4xx, but not 408 or 429) ends the run."""
    expected: bytes = b""
    """What an answer of status 200 must hold, or it counts as the error `not-completed`."""

    @property
    def paced(self) -> tuple[Step, ...]:
        """The rates from the start of the warm-up; empty if connections are kept busy."""
        if self.steps:
            return tuple(self.steps)
        return () if self.rate is None else (Step(self.warm_up + self.duration, self.rate),)

    @property
    def spans(self) -> tuple[float, ...]:
        """Seconds of each part that is reported by itself; they follow the warm-up."""
        return tuple(step.seconds for step in self.steps) or (self.duration,)

    @property
    def bounds(self) -> tuple[float, ...]:
        """Seconds from the start at which those parts begin, and at which the last one ends."""
        return tuple(accumulate(self.spans, initial=0.0 if self.steps else self.warm_up))


def due_times(steps: Sequence[Step]) -> Iterator[float]:
    """Seconds from the start at which each request is due."""
    begin = 0.0
    for step in steps:
        for number in range(step.count):
            yield begin + number / step.rate
        begin += step.seconds


def requests(load: Load) -> list[bytes]:
    """The requests as they go over the wire.

    Raises:
        ConfigurationError: the URL is not `http://`, or not this machine's.
    """
    url = urlsplit(load.url)
    if url.scheme != "http" or not url.hostname:
        raise ConfigurationError(f"the load generator takes http:// URLs, not {load.url!r}")
    if url.hostname not in LOOPBACK and not load.allow_remote:
        raise ConfigurationError(
            f"{url.hostname} is not this machine: load it with --allow-remote (allow_remote=True)"
        )
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    extra = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
    if not load.bodies:
        return [f"GET {target} HTTP/1.1\r\nHost: {url.netloc}\r\n{extra}\r\n".encode()]
    return [
        f"POST {target} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{extra}\r\n".encode()
        + body
        for body in load.bodies
    ]
