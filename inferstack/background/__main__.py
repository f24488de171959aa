"""`python -m inferstack.background`: a Celery worker, and its clock unless `--no-beat` is given."""

import argparse
import sys
import warnings

from celery.exceptions import SecurityWarning
from celery.signals import worker_ready

from inferstack import config
from inferstack.background.app import QUEUE, create_app, send_all
from inferstack.errors import ConfigurationError
from inferstack.telemetry import logs

THREADS = 2
"""A long duty must not keep the frequent ones waiting."""


def main() -> int:
    """Works until SIGTERM, then finishes what it began; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m inferstack.background", description=__doc__)
    parser.add_argument("--no-beat", action="store_true", help="only work; another one sends")
    chosen = parser.parse_args()
    try:
        settings = config.settings()
        logs.setup("background", level=settings.log_level, style=settings.log_format)
        app = create_app(settings)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    if not chosen.no_beat:
        worker_ready.connect(lambda **_: send_all(app), weak=False)
    # It warns of root because of pickle, which is not accepted.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        # Duties wait for PostgreSQL and Redis: threads do, and no process has to be forked.
        pool="threads",
        concurrency=THREADS,
        queues=[QUEUE],
        beat=not chosen.no_beat,
        loglevel=settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
