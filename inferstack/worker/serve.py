"""All replicas on Ray Serve: `python -m inferstack.worker.serve`.

Ray reads its environment when it is imported, so the three modules that use it, `ray_cluster`,
`ray_fleet` and `ray_replica`, import it in functions, after `main` has set that.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

from inferstack import config, refusal
from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.engines.repository import ModelEntry, scan
from inferstack.errors import InferstackError
from inferstack.queue.connection import connect
from inferstack.telemetry import pulse
from inferstack.telemetry.exposure import shown
from inferstack.wording import summary
from inferstack.worker import drain, measures, ray_cluster, ray_settings
from inferstack.worker.host import redis_url, services_arrived
from inferstack.worker.placement import default_first
from inferstack.worker.ray_fleet import Fleet
from inferstack.worker.registrar import MOST_EARLY_DEATHS, Registrar

log = logging.getLogger(__name__)

GIVEN_UP = (
    f"its replica ended before it was ready, {MOST_EARLY_DEATHS} times in a row: see the worker's "
    "log (it is not tried again until a restart)"
)
FAILURE_CHECK = 1.0
"""Seconds between two looks at what Serve has given up."""


async def serve(entries: Sequence[ModelEntry], settings: Settings) -> None:
    """Keeps every deployment running and registered until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    _stop_on_signals(stopping)
    if not await services_arrived(settings, stopping):
        return
    redis = connect(redis_url(settings))
    registrar = Registrar(redis, entries, settings, tells_losses=True)
    registering = asyncio.create_task(registrar.run())
    first, rest = default_first(entries, settings)
    fleet = Fleet([*first, *rest], settings, registrar.failed)
    # In a cluster each machine shows the GPUs that it lends (`worker.node`); the head lends none.
    devices = partial(measures.of_devices, None if settings.ray_address is None else ())
    try:
        await asyncio.to_thread(ray_cluster.start, settings)
        # Ray has installed handlers of its own meanwhile.
        _stop_on_signals(stopping)
        async with (
            pulse.beating("worker", settings.inferstack_home) as own,
            shown("worker", devices, settings),
            asyncio.TaskGroup() as group,
        ):
            own.ready()
            parts = [
                group.create_task(_deploy(fleet, registrar, first, rest)),
                group.create_task(_report_given_up(registrar)),
                group.create_task(fleet.follow()),
            ]
            await stopping.wait()
            for part in parts:
                part.cancel()
    finally:
        await end(registering)
        await redis.aclose()
        await asyncio.to_thread(ray_cluster.stop, drain.of_replicas(entries))


async def _deploy(
    fleet: Fleet, registrar: Registrar, first: Sequence[ModelEntry], rest: Sequence[ModelEntry]
) -> None:
    """Starts the default model, then the others."""
    fleet.add(first)
    await registrar.default_settled()
    fleet.add(rest)


async def _report_given_up(registrar: Registrar) -> None:
    while True:
        await asyncio.sleep(FAILURE_CHECK)
        if not registrar.starting:
            continue
        try:
            names = await asyncio.to_thread(ray_cluster.given_up)
        except Exception as error:
            # Ray's errors have no common root. Its controller may be starting again: look later.
            log.warning("cannot ask Serve for its applications: %s", summary(error))
            continue
        for name in names:
            registrar.failed(name, GIVEN_UP)


def _stop_on_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)


def main() -> int:
    """Serves the whole repository; returns the exit code."""
    try:
        settings = config.settings_with("redis_url")
        ray_settings.set_up_logs("worker", settings)
        environment = config.as_environment(settings)
        wanted = ray_settings.environment(settings)
        if any(environment.get(name) != value for name, value in wanted.items()):
            # Not by changing the environment of this process: only config.py touches that.
            command = [sys.executable, "-P", "-m", "inferstack.worker.serve"]
            os.execve(sys.executable, command, {**environment, **wanted})
        entries = scan(settings.model_path.absolute(), settings)
        if settings.ray_address is None:
            settings = ray_settings.leave_working_directory(settings)
        asyncio.run(serve(entries, settings))
    except InferstackError as error:
        refusal.end(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
