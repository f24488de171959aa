"""Log lines of every process: one JSON object a line, or plain text for people.

A line about a task carries its id as `task_id`, so that one search finds the whole life of a
task in the logs of all processes: docs/monitoring.md says which steps are written at which level.
"""

import logging
import sys
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from inferstack import config
from inferstack.wording import encodable

log = logging.getLogger(__name__)

STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
QUIET = (
    "uvicorn.access",
    "httpx",
    "httpcore",
    "filelock",
    "urllib3",
    "ray.serve",
    # Two lines for every turn of a duty, whether it found work or not; duties tell of theirs.
    "celery.worker.strategy",
    "celery.app.trace",
)
"""Loggers of libraries that tell of every request; their warnings are written."""
TEXT = "%(asctime)s %(levelname)-7s %(service)s %(name)s: %(message)s"

_encoder = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, service, logger, message, and every `extra`."""

    def __init__(self, service: str) -> None:
        """Args: service: which program writes, such as `api` or `recorder`."""
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record, without a line break inside."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _extras(record)
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return _encode(line)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def __init__(self, service: str) -> None:
        """Args: service: which program writes."""
        super().__init__(TEXT, defaults={"service": service})

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback; every `extra` follows as `name=value`."""
        more = [f"{name}={value}" for name, value in _extras(record).items()]
        return " ".join((super().formatMessage(record), *more))


def setup(service: str, *, level: str = "INFO", style: Literal["json", "text"] = "json") -> None:
    """Sends every logger of this process to stderr, in one format; call it once, first.

    Warns of variables that are nearly settings: every program comes by here. One that another
    started is silent, since its environment holds every setting.

    Args:
        service: which program writes, such as `api` or `recorder`.
        level: the lowest level that is written.
        style: `json` for machines, `text` for people.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if style == "json" else TextFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for line in config.misspelt():
        log.warning(line)


def tell(
    log: logging.Logger, level: int, what: str, task_ids: Iterable[str], **more: object
) -> None:
    """Writes the same line for each of some tasks; costs next to nothing below the level.

    Args:
        log: of the module.
        level: such as `logging.DEBUG`.
        what: happened to them.
        task_ids: gone through only if the line is written.
        more: further fields.
    """
    if log.isEnabledFor(level):
        for task_id in task_ids:
            log.log(level, what, extra={"task_id": task_id, **more})


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


def _encode(line: dict[str, Any]) -> str:
    try:
        return _encoder.encode(line).decode()
    except (TypeError, ValueError, RecursionError):
        # An `extra` that is no JSON must not lose the line, nor half of a surrogate pair.
        plain = {name: encodable(str(value)) for name, value in line.items()}
        return _encoder.encode(plain).decode()
