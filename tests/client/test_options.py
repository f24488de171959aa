"""Where a client goes, as whom, and when it repeats."""

import random

import pytest

from inferstack.client.errors import Problem, UnreachableError
from inferstack.client.options import Retries, may_repeat, target
from inferstack.client.transport import httpx_settings
from inferstack.client.wire import Request
from inferstack.errors import ConfigurationError

GET = Request(method="GET", path="/")


def test_without_settings_it_is_an_anonymous_local_caller() -> None:
    found = target(None, None, None)
    assert (found.url, found.headers, found.local) == ("http://127.0.0.1:8000", {}, True)


def test_the_environment_gives_url_and_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERSTACK_URL", "https://gpu.example/")
    monkeypatch.setenv("INFERSTACK_API_KEY", "is_env")
    found = target(None, None, None)
    assert (found.url, found.headers) == ("https://gpu.example", {"x-api-key": "is_env"})
    assert not found.local


@pytest.mark.parametrize("url", ["https://gpu.example", "HTTPS://gpu.example"])
def test_whoever_answers_over_tls_must_prove_who_it_is(url: str) -> None:
    assert httpx_settings(target(url, None, "is_key"), 1)["verify"]
    assert not httpx_settings(target("http://gpu.example", None, "is_key"), 1)["verify"]


def test_an_argument_silences_the_credentials_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INFERSTACK_TOKEN", "from-env")
    assert target(None, None, "is_mine").headers == {"x-api-key": "is_mine"}
    assert target(None, "mine", None).headers == {"authorization": "Bearer mine"}


def test_two_credentials_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        target(None, "token", "is_key")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host",
        "http://",
        "nonsense",
        "",
        "http://[::1",
        "http://host:99999",
        "http://host:0",
        "http://host:port",
        "http://ho\nst",
    ],
)
def test_a_url_that_is_not_one_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a URL"):
        target(url, None, None)


@pytest.mark.parametrize("secret", ["s3cr\u00e9t", "s3cret\n", "s3cret two", "s3cret\udce9"])
def test_a_credential_that_no_header_takes_is_refused_and_never_shown(secret: str) -> None:
    for token, api_key in ((secret, None), (None, secret)):
        with pytest.raises(ConfigurationError, match="not ASCII") as caught:
            target(None, token, api_key)
        assert "s3cr" not in str(caught.value)


def test_a_credential_of_the_environment_is_checked_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for secret in ("s3cr\u00e9t", "s3cret\udce9", "s3cret\n"):
        monkeypatch.setenv("INFERSTACK_TOKEN", secret)
        with pytest.raises(ConfigurationError, match="INFERSTACK_TOKEN") as caught:
            target(None, None, None)
        assert "s3cr" not in str(caught.value)


def test_what_may_pass_is_repeated_and_what_will_not_is_not() -> None:
    assert may_repeat(UnreachableError("x", sent=True))
    assert may_repeat(Problem(503))
    assert not may_repeat(Problem(422))


def test_delays_double_up_to_the_cap_and_come_after_retry_after() -> None:
    retries, rng = Retries(attempts=99, base=0.1, cap=1.0), random.Random(7)
    for failures in range(1, 20):
        bound = min(1.0, 0.1 * 2 ** (failures - 1))
        delays = [retries.delay(Problem(503), failures, GET, rng) or 0.0 for _ in range(200)]
        assert max(delays) <= bound
        assert max(delays) > bound / 2 > min(delays)
        later = retries.delay(Problem(503, retry_after=5.0), failures, GET, rng)
        assert later is not None
        assert 5.0 <= later <= 5.0 + bound


def test_the_last_attempt_is_the_last() -> None:
    assert Retries(attempts=3).delay(Problem(503), 3, GET, random.Random(1)) is None
