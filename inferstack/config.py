"""All configuration, and the only reader of the environment."""

import os
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from inferstack.errors import ConfigurationError
from inferstack.wording import explain

EXAMPLE_MARK = "change-me"
"""Stands in every secret of `.env.example`."""
EXAMPLE_SECRETS = frozenset(
    {"admin", "changeme", "example", "inferstack", "minioadmin", "pass", "password", "postgres"}
    | {"redis", "secret", "xxx"}
)
"""What documentation puts where a secret belongs, and what others try first."""
SECRETS = ("secret_key", "admin_password", "s3_secret_key", "ray_auth_token")
URLS_WITH_PASSWORDS = ("database_url", "redis_url", "celery_broker_url")
TAKES = {
    "database_url": "postgresql://user:password@host:port/name",
    "redis_url": "redis://:password@host:port/number",
}
"""What those settings look like that some processes cannot do without."""
ALIKE = 0.9
"""How like a setting a name must be for a typo: more than REDIS_PORT and METRICS_PORT are."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(BaseSettings):
    """Every setting; each is an environment variable of the same name in upper case.

    Sizes are bytes unless the name ends otherwise; durations are seconds unless it
    ends in `_ms`.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        case_sensitive=False,
        allow_inf_nan=False,
    )

    # Services. None means: the embedded stack starts its own.
    database_url: str | None = None
    redis_url: str | None = None
    celery_broker_url: str | None = None
    s3_endpoint: str | None = None
    s3_access_key: SecretStr | None = None
    s3_secret_key: SecretStr | None = None
    s3_bucket: str = "inferstack"
    s3_region: str = "us-east-1"
    ray_address: str | None = None
    ray_auth_token: SecretStr | None = None
    """Every machine of the Ray cluster at `ray_address` must show it to the others."""
    ray_autoscaling: bool = False
    """Whether that cluster adds machines for replicas that wait for one."""

    # Models and batching.
    model_path: Path = Path("models")
    default_model: str = "minilm"
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    max_batch_wait_ms: Annotated[float, Field(ge=0, le=100)] = 100
    """Upper limit of every model's batch wait, counted from the batch's first item."""

    # The API.
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    api_processes: Annotated[int, Field(ge=1, le=64)] = 1
    max_body_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    max_wait: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """The longest `Prefer: wait` that is honoured."""
    max_batch_items: Annotated[int, Field(ge=1, le=100_000)] = 1000

    ui_path: Path | None = None
    """Folder of the built web UI, served at `/`; without it only the API is."""

    # Who may call.
    auth_required: bool = False
    """`/health`, `/metrics` and the API's documentation are open all the same."""
    secret_key: SecretStr | None = None
    """Signs access tokens; at least 32 characters."""
    access_token_ttl: Annotated[float, Field(ge=60)] = 3600.0
    admin_username: str = "admin"
    admin_password: SecretStr | None = None

    # The queue.
    max_queue: Annotated[int, Field(ge=1)] = 100_000
    """Tasks that may wait in one deployment before 503."""
    max_tenant_queue: Annotated[int, Field(ge=1)] = 50_000
    """Tasks that one tenant may have waiting or running in one deployment before 429."""
    max_outbox: Annotated[int, Field(ge=1)] = 1_000_000
    """Changes that may wait for the recorder before new work gets 503."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    max_crashes: Annotated[int, Field(ge=1, le=100)] = 2
    """Replicas a task may take down before it is failed."""
    lease: Annotated[float, Field(ge=1)] = 15.0
    retry_delay: Annotated[float, Field(ge=0)] = 1.0
    max_retry_delay: Annotated[float, Field(ge=0)] = 60.0
    idempotency_ttl: Annotated[float, Field(ge=20)] = 3600.0
    """How long a key finds its task again; each costs Redis about 200 bytes meanwhile."""

    # The circuit breaker of each deployment.
    breaker: bool = True
    """Whether a deployment that fails stops taking work for a while."""
    breaker_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of attempts that end in an error of the engine from which on the circuit opens."""
    breaker_volume: Annotated[int, Field(ge=1)] = 50
    """Attempts in the window below which the share says nothing."""
    breaker_window: Annotated[float, Field(gt=0)] = 30.0
    """Seconds in which an outcome fades to a third."""
    breaker_crashes: Annotated[int, Field(ge=1)] = 5
    """Replicas lost in a row, without a result in between, from which on the circuit opens."""
    breaker_pause: Annotated[float, Field(gt=0)] = 5.0
    """Seconds until probes may pass; doubled each time that they fail, up to 32 times as long."""

    # History.
    archived_ttl: Annotated[float, Field(ge=20)] = 60.0
    """How long Redis keeps a task after PostgreSQL has it: longer than a repeat of its submit may
    be on its way, see `queue.committer.PATIENCE` and `queue.task_queue.VALID`."""
    inline_limit: Annotated[int, Field(ge=0)] = 64 * 1024
    """Inputs and results larger than this go to the object store."""
    result_retention_days: Annotated[float, Field(gt=0)] = 30.0

    # Metrics.
    metrics_host: str = "127.0.0.1"
    """Where replicas, the recorder and the others show their metrics; nobody has to log in."""
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0: a free one for each process, see `telemetry/discovery.py`; another: one for all."""

    # Traces.
    otel_exporter_otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector that takes OTLP over HTTP; None sends no spans."""
    trace_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the requests without a trace of their own that begin one."""

    # This machine.
    inferstack_home: Path = Path(".inferstack")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"
    environment: Literal["development", "production"] = "development"
    failpoint_file: Path | None = None
    """Where fault tests say at which place a process dies; see `failpoint.py`."""

    model_list: Annotated[tuple[str, ...], NoDecode] = ()

    @model_validator(mode="before")
    @classmethod
    def _split_model_list(cls, values: Any) -> Any:
        raw = values.get("model_list") if isinstance(values, dict) else None
        if isinstance(raw, str):
            values["model_list"] = tuple(name.strip() for name in raw.split(",") if name.strip())
        return values

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        found = [*self._exposed_without_authentication()]
        if self.environment == "production":
            found += self._refused_in_production()
        if found:
            raise ValueError("\n".join(found))
        return self

    def _exposed_without_authentication(self) -> Iterator[str]:
        secret = self.secret_key.get_secret_value() if self.secret_key else ""
        if secret and len(secret) < 32:
            yield "SECRET_KEY must have 32 characters or more"
        if self.host not in LOOPBACK and not self.auth_required:
            yield (
                f"HOST={self.host} is reachable from outside: set AUTH_REQUIRED=true and SECRET_KEY"
            )

    def _refused_in_production(self) -> Iterator[str]:
        if self.failpoint_file is not None:
            yield "FAILPOINT_FILE kills processes: it is refused in production"
        for name, value in self._passwords():
            if _is_example(value):
                yield (
                    f"{name.upper()} holds an example secret: production needs one of your own, "
                    "such as `openssl rand -hex 32` prints"
                )

    def _passwords(self) -> Iterator[tuple[str, str]]:
        """Setting and secret, of those that hold one."""
        for name in SECRETS:
            value = getattr(self, name)
            if value is not None:
                yield name, value.get_secret_value()
        for name in URLS_WITH_PASSWORDS:
            password = _password(getattr(self, name))
            if password is not None:
                yield name, password


class ClientSettings(BaseSettings):
    """Where the SDK finds the API, and as whom it calls."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, case_sensitive=False
    )

    inferstack_url: str = "http://127.0.0.1:8000"
    inferstack_token: SecretStr | None = None
    inferstack_api_key: SecretStr | None = None


def load(**overrides: Any) -> Settings:
    """Reads the environment.

    Args:
        overrides: settings that win over the environment, by field name.

    Raises:
        ConfigurationError: one line for each variable that is wrong, naming it and what it takes.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explain(item) for item in error.errors())) from None


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return load()


def settings_with(*names: str) -> Settings:
    """The settings of a process that cannot do without some of them.

    Args:
        names: fields out of `TAKES`.

    Raises:
        ConfigurationError: one line for each variable that is wrong or missing.
    """
    try:
        current = settings()
    except ConfigurationError as error:
        given = {name.lower() for name, value in os.environ.items() if value}
        missing = [_missing(name) for name in names if name not in given]
        raise ConfigurationError("\n".join([str(error), *missing])) from None
    require(current, *names)
    return current


def require(current: Settings, *names: str) -> None:
    """Makes sure that what a process cannot do without is set.

    Args:
        current: the settings of the process.
        names: fields out of `TAKES`.

    Raises:
        ConfigurationError: one line for each variable that is missing.
    """
    missing = [name for name in names if getattr(current, name) is None]
    if missing:
        raise ConfigurationError("\n".join(map(_missing, missing)))


def _missing(name: str) -> str:
    return f"{name.upper()} is not set; it takes {TAKES[name]}"


def misspelt() -> list[str]:
    """A line for each variable that is no setting and is named nearly like one that is not set."""
    known = [name.upper() for name in (*Settings.model_fields, *ClientSettings.model_fields)]
    given = {name.upper() for name in os.environ}
    lines = []
    for name in sorted(given.difference(known)):
        bare = name.removeprefix("INFERSTACK_")
        alike = get_close_matches(bare, known, 1, ALIKE) or get_close_matches(name, known, 1, ALIKE)
        if alike and alike[0] not in given:
            lines.append(f"{name} is no setting and changes nothing: {alike[0]} is one")
    return lines


def client_settings() -> ClientSettings:
    """The settings of an SDK client that is made now."""
    return ClientSettings()


def as_environment(current: Settings) -> dict[str, str]:
    """The environment that gives a child process these settings."""
    env = dict(os.environ)
    for name, value in current.model_dump(mode="python").items():
        env[name.upper()] = _as_text(value)
    return env


def inherited(**more: str) -> dict[str, str]:
    """The environment of a program that shares ours, as PostgreSQL's tools share PGSSLMODE."""
    return os.environ | more


def visible_gpus() -> str | None:
    """CUDA_VISIBLE_DEVICES of this process; None if it is not set, so that CUDA shows every GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def _is_example(secret: str) -> bool:
    return EXAMPLE_MARK in secret.lower() or secret.lower() in EXAMPLE_SECRETS


def _password(url: str | None) -> str | None:
    """The password in a URL; None if there is none, or it is no URL, which others tell better."""
    try:
        password = urlsplit(url or "").password
    except ValueError:
        return None
    return None if password is None else unquote(password)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _explain(item: Any) -> str:
    words = explain(item)
    if not item["loc"]:
        return words
    return f"{str(item['loc'][0]).upper()}={words}"
