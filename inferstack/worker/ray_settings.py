"""What Ray is told through its environment and arguments, and where it runs. Imports no Ray."""

import contextlib
import logging
import os
import re
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

import psutil

from inferstack.config import Settings
from inferstack.errors import ConfigurationError
from inferstack.telemetry import logs
from inferstack.worker import gpu

FALLBACK = Path("/tmp")
"""Where Ray's folder goes if the home's path is too long."""
LONGEST_SOCKET_PATH = 107
"""Bytes of a unix socket's path on Linux, without the final zero (unix(7))."""
OPEN = "s"
"""Ray lets everybody write into its folder, so it lies in one that only we may enter."""
INSIDE = len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store.1234567")
"""What Ray adds to its folder for its longest socket."""
NO_FAILURE = r"ServeController\.graceful_shutdown failed"
SESSION = re.compile(r"session_[0-9_-]+_([0-9]+)")
"""How Ray calls the folder of one run; the number is the process that started it."""


def environment(settings: Settings) -> dict[str, str]:
    """Variables that must be set before Ray is imported.

    A local Ray listens on loopback only and asks for a token. The cluster at RAY_ADDRESS asks for
    RAY_AUTH_TOKEN, if that is set; else its operator decides about its authentication.
    """
    values = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "1",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
        # A replica without a GPU share of its own may still be given a device by its config.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_HUB_OFFLINE": "1",
        # Ray would have replicas yield to every other process of the machine (nice 15), also to
        # our own; then the batch that all are waiting for comes last.
        "RAY_worker_niceness": "0",
        # Its lines end up in worker.log, which is for reading and searching.
        "RAY_COLOR_PREFIX": "0",
        # Every line as it is, but for one of Ray's own at each stop that is no failure.
        "RAY_DEDUP_LOGS_ALLOW_REGEX": f"^(?!.*{NO_FAILURE})",
        "RAY_DEDUP_LOGS_SKIP_REGEX": NO_FAILURE,
    }
    if settings.ray_address is not None:
        token = settings.ray_auth_token
        if token is None:
            return values
        return {**values, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token.get_secret_value()}
    if gpus := gpu.visible():
        values |= gpu.environment(gpus)
    return {
        **values,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token(settings.inferstack_home.absolute())),
        # The switch behind which Ray takes 127.0.0.1 for the address of its node.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Nobody scrapes Ray: its own metrics only cost.
        "RAY_enable_metrics_collection": "0",
        # The controller polls: ten times a second is a waste on a small machine.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    }


def options(settings: Settings) -> dict[str, Any]:
    """The arguments of `ray.init` for a local Ray."""
    return {
        "_temp_dir": str(folder(settings)),
        "num_cpus": max(4, gpu.cores()),
        "num_gpus": len(gpu.visible()),
        # Work does not pass through Ray's object store.
        "object_store_memory": 80 * 1024 * 1024,
        "configure_logging": False,
    }


def folder(settings: Settings) -> Path:
    """Where a local Ray keeps its sockets and logs; /tmp if the home's path is too long."""
    home = settings.inferstack_home.absolute() / "ray" / OPEN
    if len(os.fsencode(home)) + INSIDE <= LONGEST_SOCKET_PATH:
        return home
    return FALLBACK / f"inferstack-ray-{os.getuid()}" / OPEN


def make_folder(settings: Settings) -> Path:
    """Makes `folder` inside one for this user only, without what runs left there that are over.

    Raises:
        ConfigurationError: it is somebody else's.
    """
    inner = folder(settings)
    path = inner.parent
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    # Anybody can make things in the fallback's parent, also a link to a folder of ours.
    found = path.lstat() if path.parent == FALLBACK else path.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigurationError(
            f"{path} is not a folder of this user: remove it, "
            "or set INFERSTACK_HOME to a shorter path, so that Ray's sockets fit into it"
        )
    path.chmod(0o700)
    inner.mkdir(exist_ok=True)
    for session in inner.glob("session_*"):
        if not _runs(session):
            shutil.rmtree(session, ignore_errors=True)
    return inner


def leave_working_directory(settings: Settings) -> Settings:
    """Leaves the working directory for Ray's folder; returns settings that do not care.

    Ray puts the working directory first into the search path of its processes, where a file
    named like a module of the standard library would win.

    Raises:
        ConfigurationError: as `make_folder` does.
    """
    paths = {name: path.absolute() for name, path in settings if isinstance(path, Path)}
    os.chdir(make_folder(settings).parent)
    return settings.model_copy(update=paths)


def set_up_logs(service: str, settings: Settings) -> None:
    """As everywhere, without what Ray adds to it."""
    logs.setup(service, level=settings.log_level, style=settings.log_format)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_ray_fields)
    # It is true and no news: the worker sets handlers of its own.
    logging.getLogger("ray._private.worker").addFilter(
        lambda record: "SIGTERM handler is not set" not in str(record.msg)
    )


def _without_ray_fields(record: logging.LogRecord) -> bool:
    vars(record).pop("_ray_timestamp_ns", None)
    return True


def _runs(session: Path) -> bool:
    """Whether the Ray of a session may still run: another home's, or one that nobody ended."""
    named = SESSION.fullmatch(session.name)
    if named is None:
        return True  # such as `session_latest`, a link that Ray renews
    pid = int(named[1])
    if pid == os.getpid():
        return False  # this process has not started Ray yet: its id was somebody else's before
    with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
        return psutil.Process(pid).create_time() <= session.stat().st_ctime
    return False


def _token(home: Path) -> Path:
    """The file with the token of the local cluster, made once, readable by its owner only."""
    path = home / "ray_token"
    home.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
    return path
