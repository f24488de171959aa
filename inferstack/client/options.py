"""How a client reaches the API, how long it waits and how often it repeats."""

import random
from urllib.parse import urlsplit

import httpx
import msgspec
from pydantic import SecretStr

from inferstack import config
from inferstack.client.errors import ClientError, Problem, UnreachableError
from inferstack.client.wire import Request
from inferstack.errors import ConfigurationError
from inferstack.retry import full_jitter

REFUSED = frozenset({429, 503})
"""The API did nothing and says so."""
GATEWAY = frozenset({502, 504})
"""A proxy lost the API: it may have done something."""
AT_ONCE = "deadline-unreachable"
"""The problem that a caller asked to hear of at once, by `reject_if_late`."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The longest a client waits for the network, in seconds."""

    connect: float = 5.0
    answer: float = 30.0
    """For each read and write; the time that the API is asked to hold an answer comes on top."""
    hold: float = 30.0
    """How long one request waits for a task before the next one does."""


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """How often a client repeats what may succeed next time."""

    attempts: int = 6
    """Requests sent for one call at most; 1 never repeats."""
    base: float = 0.1
    """Upper bound of the first delay in seconds; it doubles with each failure."""
    cap: float = 10.0
    """Upper bound of every delay, before what `Retry-After` adds."""
    budget: float = 60.0
    """Seconds that one call may spend on delays."""

    def delay(
        self, failure: ClientError, failures: int, request: Request, rng: random.Random
    ) -> float | None:
        """Seconds to wait before the request is sent again, or None to give up.

        What the API asks for by `Retry-After` is a minimum; jitter comes on top, so that
        clients that were refused together do not return together.

        Args:
            failure: how the latest attempt failed.
            failures: how many attempts failed, from 1.
            request: what was sent.
            rng: source of the jitter.
        """
        if failures >= self.attempts or not may_repeat(failure):
            return None
        return (failure.retry_after or 0.0) + full_jitter(failures, self.base, self.cap, rng)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where the API is and who calls."""

    url: str
    headers: dict[str, str]
    """Credentials; empty for an anonymous caller."""

    @property
    def local(self) -> bool:
        """Whether the API runs on this machine, where no proxy is in between."""
        return urlsplit(self.url).hostname in config.LOOPBACK


def may_repeat(failure: ClientError) -> bool:
    """Whether sending the request again may help; it does no harm, submits carry a key."""
    if isinstance(failure, UnreachableError):
        return True
    if not isinstance(failure, Problem) or failure.kind == AT_ONCE:
        return False
    return failure.status in REFUSED | GATEWAY


def target(url: str | None, token: str | None, api_key: str | None) -> Target:
    """Where to and as whom; what is not given comes from the environment.

    Args:
        url: such as `http://127.0.0.1:8000`; INFERSTACK_URL if None.
        token: an access token; INFERSTACK_TOKEN if neither it nor a key is given.
        api_key: an API key; INFERSTACK_API_KEY if neither it nor a token is given.

    Raises:
        ConfigurationError: the URL is not one, there are both a token and a key, or one of them
            cannot stand in a header.
    """
    env = _environment()
    if token is None and api_key is None:
        token, api_key = _plain(env.inferstack_token), _plain(env.inferstack_api_key)
    if token and api_key:
        raise ConfigurationError("give an access token or an API key, not both")
    headers = bearer(token) if token else {}
    if api_key:
        headers = {"x-api-key": _credential(api_key)}
    return Target(url=_checked(env.inferstack_url if url is None else url), headers=headers)


def bearer(token: str) -> dict[str, str]:
    """The header that carries an access token.

    Raises:
        ConfigurationError: it cannot stand in a header.
    """
    return {"authorization": f"Bearer {_credential(token)}"}


def _environment() -> config.ClientSettings:
    try:
        return config.client_settings()
    except ValueError:
        # Its message would hold the token.
        raise ConfigurationError(
            "INFERSTACK_URL, INFERSTACK_TOKEN or INFERSTACK_API_KEY is not valid text"
        ) from None


def _credential(text: str) -> str:
    """The text itself, if it can stand in a header; the error never shows it."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigurationError(
            "the access token or API key holds a space, a line break, or a character that is "
            "not ASCII: check what was given, or INFERSTACK_TOKEN and INFERSTACK_API_KEY"
        )
    return text


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        # urllib finds wrong brackets and ports, httpx the rest.
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        valid = False
    if not valid:
        raise ConfigurationError(f"{url!r} is not a URL such as http://127.0.0.1:8000")
    return url.rstrip("/")
