"""What the embedded stack is made of, given the settings."""

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from signal import SIGTERM
from urllib.parse import unquote, urlsplit

import httpx
import msgspec

import inferstack
from inferstack import config
from inferstack.config import Settings
from inferstack.errors import StackError
from inferstack.local import binaries, postgres_server, redis_server
from inferstack.local.home import Home, Identity
from inferstack.local.place import Place, locate, make_parent, reachable_binaries
from inferstack.local.processes import MARK
from inferstack.local.program import Program

POSTGRES_PORT = 5432
REDIS_PORT = 6379


class Stack(msgspec.Struct, frozen=True):
    """Everything that is decided before the first child starts."""

    settings: Settings
    """What the children get: every URL is set."""
    mark: str
    """What its processes carry in their environment."""
    redis: Program | None
    """None when REDIS_URL names one that runs already."""
    postgres: Program | None
    notes: list[str]

    @property
    def url(self) -> str:
        """Where the API is, as somebody on this machine reaches it."""
        return api_url(self.settings)


def api_url(settings: Settings) -> str:
    """Where the API of these settings is, as somebody on this machine reaches it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def plan(home: Home, wanted: Settings) -> Stack:
    """Decides what to run, and makes PostgreSQL's data if there is none.

    Args:
        home: prepared and locked.
        wanted: the settings from the environment and the command line.

    Raises:
        StackError: a program is missing, does not fit the data, or cannot run.
    """
    own_redis, own_postgres = wanted.redis_url is None, wanted.database_url is None
    redis_binary = binaries.redis_server() if own_redis else None
    identity = home.choose(redis=own_redis, postgres=own_postgres)
    notes = []
    redis = postgres = None
    if redis_binary is not None:
        redis = redis_server.program(
            redis_binary, home.redis, identity.redis_port or 0, identity.redis_password
        )
    if own_postgres:
        place = locate(home, identity)
        postgres = _postgres(home, place, identity)
        notes = [place.note] if place.note else []
    settings = stack_settings(home, identity, wanted)
    return Stack(settings, home.mark(identity), redis, postgres, notes)


def stack_settings(home: Home, identity: Identity, wanted: Settings) -> Settings:
    """The settings with the URLs and secrets of a home filled in where none were given."""
    redis_url = redis_server.url(identity.redis_port or REDIS_PORT, identity.redis_password)
    database_url = postgres_server.url(
        identity.postgres_port or POSTGRES_PORT, identity.postgres_password
    )
    filled = {
        "redis_url": wanted.redis_url or redis_url,
        "database_url": wanted.database_url or database_url,
        "secret_key": wanted.secret_key or identity.secret_key,
        "admin_password": wanted.admin_password or identity.admin_password,
        # The children may have another working directory one day; their paths must not care.
        "model_path": wanted.model_path.absolute(),
        "inferstack_home": home.root,
        "ui_path": wanted.ui_path.absolute() if wanted.ui_path else built_ui(),
    }
    return config.load(**(wanted.model_dump() | filled))


def built_ui() -> Path | None:
    """The web UI that `make run` builds beside this code; None if it did not."""
    folder = Path(inferstack.__file__).parents[1] / "frontend" / "dist"
    return folder if (folder / "index.html").is_file() else None


def python_program(stack: Stack, name: str, *arguments: str, grace: float = 30.0) -> Program:
    """One of inferstack's own processes.

    Args:
        stack: where it belongs.
        name: what it is called.
        arguments: a module and its arguments.
        grace: seconds that it gets to drain.
    """
    environment = {**code_environment(stack.settings), MARK: stack.mark}
    return Program(
        name=name,
        command=(sys.executable, "-P", "-m", *arguments),
        environment=environment,
        ready=_at_once,
        stop=((SIGTERM, grace),),
    )


def code_environment(settings: Settings) -> dict[str, str]:
    """The environment of a Python that runs this very inferstack with some settings.

    Its code comes from where this code is. Run it with `-P`: in the working directory a file
    named like a module of the standard library would win. So it would on PYTHONPATH, which
    therefore names the folder of the code only if Python does not find it by itself.
    """
    environment = config.as_environment(settings) | {"PYTHONUNBUFFERED": "1"}
    root = Path(inferstack.__file__).parents[1]
    if not _installed(root):
        paths = [str(root), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def _installed(root: Path) -> bool:
    """Whether this environment's Python finds the code in `root` by itself."""
    try:
        found = distribution("inferstack")
    except PackageNotFoundError:
        return False
    source = found.read_text("direct_url.json") or "{}"
    editable = urlsplit(json.loads(source).get("url", "")).path
    return unquote(editable) == str(root) or Path(str(found.locate_file(""))) == root


async def api_ready(url: str) -> bool:
    """Whether the API says that it can take requests."""
    try:
        async with httpx.AsyncClient(timeout=2.0, trust_env=False, verify=False) as client:
            return (await client.get(f"{url}/health/ready")).status_code == 200
    except httpx.HTTPError:
        return False


def check_external(wanted: Settings) -> list[tuple[str, str, int]]:
    """Host and port of each service that was named, with the variable that names it.

    Raises:
        StackError: a URL without a host or with a port that is not a number.
    """
    found = []
    for variable, url, port in (
        ("REDIS_URL", wanted.redis_url, REDIS_PORT),
        ("DATABASE_URL", wanted.database_url, POSTGRES_PORT),
    ):
        if url is None:
            continue
        try:
            parts = urlsplit(url)
            host, number = parts.hostname, parts.port or port
        except ValueError:
            host = None
        if not host:
            raise StackError(f"{variable} is not a URL with a host and a port")
        found.append((variable, host, number))
    return found


def _postgres(home: Home, place: Place, identity: Identity) -> Program:
    make_parent(place)
    if not place.data.is_relative_to(home.root):
        home.keep_outside(place.data)
    found = binaries.postgres(postgres_server.major(place.data))
    runnable = reachable_binaries(found, place.account)
    postgres_server.create(runnable, place.data, identity.postgres_password, place.account)
    return postgres_server.program(runnable, place.data, identity.postgres_port or 0, place.account)


async def _at_once() -> bool:
    return True
