"""One API process: `python -m inferstack.api`."""

import gc
import sys

from inferstack import config, refusal
from inferstack.api.app import create_app
from inferstack.api.listener import bind, raise_file_limit
from inferstack.api.server import serve
from inferstack.errors import ConfigurationError
from inferstack.telemetry import logs


def main() -> int:
    """Serves until SIGTERM; 0 after a drain, 1 if it could not start."""
    try:
        settings = config.settings_with("redis_url", "database_url")
        logs.setup("api", level=settings.log_level, style=settings.log_format)
        raise_file_limit()
        listener = bind(settings)
        edge = create_app(settings)
        # What the imports made lives for ever, and requests make no cycles: look for garbage
        # rarely.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        return 0 if serve(edge, listener) else 1
    except ConfigurationError as error:
        refusal.end(error)


if __name__ == "__main__":
    sys.exit(main())
