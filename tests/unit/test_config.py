"""The environment, and what is said when it is wrong."""

import pytest

from inferstack import config
from inferstack.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("BATCH_SIZE", "zero", "a whole number"),
        ("PORT", "99999", "65535 or less"),
        ("LEASE", "-1", "1 or more"),
        ("MAX_WAIT", "0", "more than 0"),
        ("MAX_WAIT", "nan", "a finite number"),
        ("LEASE", "inf", "a finite number"),
        ("BREAKER_WINDOW", "-inf", "a finite number"),
        ("AUTH_REQUIRED", "maybe", "true or false"),
        ("LOG_FORMAT", "LOUD", "'json' or 'text'"),
    ],
)
def test_nonsense_is_named_with_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, takes: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        config.load()
    assert caught.value.detail == f"{name}='{value}': takes {takes}"


def test_everything_wrong_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("BATCH_SIZE", "y")
    with pytest.raises(ConfigurationError) as caught:
        config.load()
    assert len(caught.value.detail.splitlines()) == 2


def test_an_exposed_address_needs_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    with pytest.raises(ConfigurationError, match="AUTH_REQUIRED"):
        config.load()
    monkeypatch.setenv("AUTH_REQUIRED", "true")
    # The embedded stack makes one; the API refuses to do without.
    assert config.load().secret_key is None
    monkeypatch.setenv("SECRET_KEY", "x" * 31)
    with pytest.raises(ConfigurationError, match="32 characters"):
        config.load()
    monkeypatch.setenv("SECRET_KEY", "x" * 32)
    assert config.load().host == "0.0.0.0"


def test_settings_that_do_not_fit_together_are_all_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(
            host="0.0.0.0",
            secret_key="short",
            environment="production",
            failpoint_file="x",
            redis_url="redis://:change-me@redis/0",
        )
    lines = caught.value.detail.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("SECRET_KEY", "HOST=0.0.0.0", "FAILPOINT_FILE", "REDIS_URL"),
    ]


def test_all_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.require(config.load(), *config.TAKES)
    lines = caught.value.detail.splitlines()
    assert lines == [f"{name.upper()} is not set; it takes {t}" for name, t in config.TAKES.items()]
    config.require(config.load(redis_url="redis://x"), "redis_url")


def test_a_child_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    first = config.load(
        model_list=("a", "b"), secret_key="s" * 40, auth_required=True, redis_url="redis://x"
    )
    for name, value in config.as_environment(first).items():
        if name.lower() in config.Settings.model_fields:
            monkeypatch.setenv(name, value)
    assert config.load() == first


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(config.load(admin_password="hunter2"))


def test_production_refuses_every_example_secret_at_once() -> None:
    examples = {
        "secret_key": "change-me-signs-access-tokens-32-characters",
        "admin_password": "Admin",
        "s3_secret_key": "minioadmin",
        "ray_auth_token": "change-me",
        "database_url": "postgresql://inferstack:change%2Dme@db/x",
        "redis_url": "redis://:secret@redis:6379/0",
        "celery_broker_url": "redis://:password@redis:6379/1",
    }
    assert config.load(**examples).environment == "development"
    with pytest.raises(ConfigurationError) as caught:
        config.load(environment="production", **examples)
    lines = caught.value.detail.splitlines()
    assert {line.split()[0] for line in lines} == {name.upper() for name in examples}
    assert all("holds an example secret" in line for line in lines)
    assert "minioadmin" not in caught.value.detail


def test_production_takes_secrets_of_ones_own_and_urls_without_any() -> None:
    loaded = config.load(
        environment="production",
        secret_key="0123456789abcdef" * 4,
        database_url="postgresql://inferstack@db/x",
        redis_url="rediss://:my-own-0815@redis:6379/0",
    )
    assert loaded.environment == "production"


def test_a_name_that_is_nearly_a_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("BATCHSIZE", "DATABASE_URI", "INFERSTACK_HOM", "INFERSTACK_MAX_QUEUE")
    innocent = ("REDIS_PORT", "DB_PASSWORD", "INFERSTACK_TAG", "GATEWAY_TIMEOUT", "HOSTNAME")
    for name in (*wrong, *innocent, "MODEL_PATHS", "MODEL_PATH"):
        monkeypatch.setenv(name, "x")
    assert config.misspelt() == [
        f"{name} is no setting and changes nothing: {meant} is one"
        for name, meant in zip(
            wrong, ("BATCH_SIZE", "DATABASE_URL", "INFERSTACK_HOME", "MAX_QUEUE"), strict=True
        )
    ]
