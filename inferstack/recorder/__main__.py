"""`python -m inferstack.recorder`: archives until it is told to stop."""

import asyncio
import sys

import uvloop

from inferstack import config, refusal
from inferstack.errors import ConfigurationError
from inferstack.recorder.process import RecorderProcess
from inferstack.telemetry import logs


async def _run(settings: config.Settings) -> None:
    await RecorderProcess(settings).run()


def main() -> int:
    """Runs the recorder with the settings of the environment; returns the exit code."""
    try:
        settings = config.settings_with("redis_url", "database_url")
        logs.setup("recorder", level=settings.log_level, style=settings.log_format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except ConfigurationError as error:
        refusal.end(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
