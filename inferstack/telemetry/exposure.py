"""Shows the metrics of this process: on a port of its own, and to the others on this machine."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from inferstack.config import Settings
from inferstack.telemetry import discovery
from inferstack.telemetry.endpoint import Endpoint
from inferstack.telemetry.peers import Peers, folder_for, merge

log = logging.getLogger(__name__)


class Exposure:
    """One process, as scrapes see it.

    With METRICS_PORT left at 0 it has a port of its own, which shows this process alone and which
    Prometheus finds by a file in the home. Another METRICS_PORT is shared by every process of the
    machine, and any of them answers for all: the one port that a container needs.
    """

    def __init__(self, service: str, exposition: Callable[[], bytes], settings: Settings) -> None:
        """Shows nothing yet.

        Args:
            service: such as `recorder`.
            exposition: the metrics of this process in Prometheus' text format; called in a thread.
            settings: tell the port, and by the home which processes belong together.
        """
        self._service = service
        self._exposition = exposition
        self._settings = settings
        self._endpoint = Endpoint(self.machine if settings.metrics_port else self._own)
        self._peers: Peers | None = None
        self._announced: Path | None = None
        self._scraping = asyncio.Lock()

    async def start(self) -> None:
        """Shows them from now on. What cannot be shown is no reason not to serve: it is logged."""
        home = self._settings.inferstack_home
        try:
            peers = Peers(folder_for(home), self._service, self._exposition)
            await peers.start()
            self._peers = peers
        except OSError as error:
            log.warning("the others cannot ask for the metrics of this process: %s", error)
        host, port = self._settings.metrics_host, self._settings.metrics_port
        try:
            found = await self._endpoint.start(host, port)
            if not port:
                self._announced = discovery.announce(home, self._service, host, found)
        except OSError as error:
            log.warning("no metrics on %s:%d: %s; see METRICS_PORT", host, port, error)

    async def stop(self) -> None:
        """Shows them no more."""
        if self._announced is not None:
            discovery.withdraw(self._announced)
        await self._endpoint.stop()
        if self._peers is not None:
            await self._peers.stop()

    async def machine(self) -> bytes:
        """The metrics of every process of this machine, each sample with the label `process`."""
        if self._peers is not None:
            return await self._peers.gather()
        return merge([(f"{self._service}-{os.getpid()}", await self._own())])

    async def _own(self) -> bytes:
        # One scrape at a time: they are rare, and the process has other work.
        async with self._scraping:
            return await asyncio.to_thread(self._exposition)


@asynccontextmanager
async def shown(
    service: str, exposition: Callable[[], bytes], settings: Settings
) -> AsyncIterator[None]:
    """Shows the metrics of this process meanwhile; see `Exposure` for the arguments."""
    exposure = Exposure(service, exposition, settings)
    await exposure.start()
    try:
        yield
    finally:
        await exposure.stop()
