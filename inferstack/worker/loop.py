"""A replica: claims, plans, computes, completes. Knows neither Ray nor HTTP.

Coroutines share one event loop: `Feed` claims and hands batches to the compute thread, `Report`
sends what has finished while the next batch computes, and the worker keeps its leases and itself
alive and watches over the running batch.
"""

import asyncio
import contextlib
import faulthandler
import logging
import os
import time
from collections.abc import Callable, Sequence

from inferstack.batching import CostFit
from inferstack.concurrency import end
from inferstack.config import Settings
from inferstack.deployment import Deployment, ReplicaStatus
from inferstack.engines.base import Engine
from inferstack.errors import InferstackError
from inferstack.lifecycle.replica import Lease
from inferstack.telemetry.logs import tell
from inferstack.telemetry.pulse import EXIT_STUCK
from inferstack.wording import summary
from inferstack.worker import gpu
from inferstack.worker.compute import Compute
from inferstack.worker.feed import Appetite, Feed
from inferstack.worker.held import Held
from inferstack.worker.measures import Measures
from inferstack.worker.report import Report
from inferstack.worker.session import Session

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between heartbeats."""
GRACE = 10.0
"""Seconds beyond the longest call for which the event loop may stand still, until that ends the
process too. Long enough for `_watch` to be first wherever it can."""


class Worker:
    """One replica of one deployment. Make it inside the event loop that runs it."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        deployment: Deployment,
        settings: Settings,
        *,
        appetite: Appetite | None = None,
        fit: CostFit | None = None,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Makes a worker; `run` starts it.

        Args:
            session: its access to the queue.
            engine: the loaded model.
            deployment: what it serves.
            settings: for the lease.
            appetite: how much it claims; one batch at a time, without waiting, if None.
            fit: what the warm-up measured.
            end_process: called with an exit code when the process cannot go on.
        """
        fit = fit or CostFit()
        appetite = appetite or Appetite(deployment.batch_size)
        self._session = session
        self._engine = engine
        self._device = gpu.on_machine(engine.device)
        self._timeout = deployment.compute_timeout
        self._lease = settings.lease
        self._extend_every = settings.lease / 3
        self._end_process = end_process
        self._held = Held()
        self._compute = Compute(engine, fit, self._held, self._wake_from_thread, self._timeout)
        self._measures = Measures(deployment)
        self._report = Report(
            session, self._held, self._compute, appetite.batch_size, self._measures
        )
        self._feed = Feed(
            session, engine, self._compute, self._report, self._held, fit, appetite, self._measures
        )
        self._loop = asyncio.get_running_loop()
        self._wake_pending = False
        self._alive_at = time.monotonic()
        self._busy_mark = (self._alive_at, 0.0)

    async def run(self) -> None:
        """Works until `drain` is called and everything that began is reported.

        Raises:
            ExceptionGroup: something unforeseen; the process should end.
        """
        self._compute.start()
        async with asyncio.TaskGroup() as group:
            keep = (self._beat(), self._watch(), self._session.listen(self._drop))
            keepers = [group.create_task(each) for each in keep]
            report = group.create_task(self._report.run())
            await group.create_task(self._feed.run())
            self._compute.stop()
            self._report.closing = True
            self._report.wake.set()
            await report
            for keeper in keepers:
                await end(keeper)
        with contextlib.suppress(InferstackError):
            await self._session.leave()

    def drain(self) -> None:
        """Claims no more, finishes the batch that computes, gives the rest back; then `run` ends.

        Of a batch that goes wrong only the running call is finished. May be called from any thread.
        """
        self._feed.draining = self._compute.draining = True
        self._wake_from_thread()

    def status(self) -> ReplicaStatus:
        """What the replica says of itself."""
        running = self._compute.ahead()[:1]
        return ReplicaStatus(
            worker=self._session.worker,
            device=self._device,
            state="draining" if self._feed.draining else "ready",
            capacity=round(self._report.capacity, 3),
            running=sum(len(job.batch.items) for job in running),
            batches=self._report.batches,
            tasks=self._report.tasks,
            computed=round(self._report.computed, 3),
            completed=self._report.completed,
        )

    def silent_for(self) -> float:
        """Seconds since the event loop last showed a sign of life. From any thread."""
        return time.monotonic() - self._alive_at

    def busy(self) -> float:
        """Share of the time since the call before that was spent computing, 0 to 1."""
        now = time.monotonic()
        spent = self._compute.busy + self._compute.running_for(now)
        (since, before), self._busy_mark = self._busy_mark, (now, spent)
        return min(1.0, max(0.0, (spent - before) / max(now - since, 1e-6)))

    def _wake_from_thread(self) -> None:
        """Wakes the coroutines, once for everything that finished meanwhile."""
        if not self._wake_pending:
            self._wake_pending = True
            # The loop may be closed when the process ends in the middle of a batch.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._wake_pending = False
        self._report.progress.set()
        self._report.wake.set()

    def _drop(self, task_id: str) -> None:
        """A task was cancelled or expired: it is not computed unless its batch runs already."""
        if self._held.drop(task_id):
            self._measures.dropped()

    async def _beat(self) -> None:
        """Keeps the replica and its leases alive.

        Leases come first: a heartbeat takes back those that ran out, also this replica's own
        after the queue was away for a while.
        """
        extended = time.monotonic()
        answered = True
        while True:
            now = time.monotonic()
            session = self._session
            self._measures.session(session.stale, session.retried, session.reaped)
            try:
                if not answered or now - extended >= self._extend_every:
                    await self._extend()
                    extended = now
                await self._session.heartbeat(self.status())
                answered = True
            except InferstackError as error:
                answered = False
                log.warning("no heartbeat: %s", error)
            await asyncio.sleep(min(BEAT, self._extend_every))

    async def _extend(self) -> None:
        leases = self._held.all()
        lost = await self._session.extend(leases)
        if lost:
            # Also tasks whose completion is being answered right now.
            log.debug("%d tasks are no longer held", len(lost))
            self._held.forget(lease for lease in leases if lease.task_id in lost)

    async def _watch(self) -> None:
        """Ends the process when the device is lost or a batch takes longer than it may.

        The leases bring its tasks back.

        A call that never lets go of the interpreter, such as a regular expression that backtracks
        for ever, stops this loop too. A thread of `faulthandler`, which needs no interpreter, then
        writes to stderr where all threads are, and ends the process with status 1.
        """
        try:
            while True:
                # Without a thread to be had just now, the next turn tries again.
                with contextlib.suppress(RuntimeError):
                    faulthandler.dump_traceback_later(self._timeout + GRACE, exit=True)
                self._check()
                await asyncio.sleep(min(BEAT, self._timeout / 4))
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _check(self) -> None:
        now = time.monotonic()
        # Less the pause between two turns.
        still, self._alive_at = now - self._alive_at - BEAT, now
        if still > self._lease - self._extend_every:
            what = (
                "this process stood still for %.1f s, and LEASE is %g s: its tasks may have been "
                "taken back, as from a crash. If a call of the model kept the interpreter, have it "
                "release the GIL, or raise LEASE"
            )
            log.error(what, still, self._lease)
        if self._compute.lost is not None:
            self._say(f"device lost: {summary(self._compute.lost)}", self._running())
            self._end_process(EXIT_STUCK)
        stuck = f"a call of the model is stuck for more than {self._timeout:g} seconds"
        if self._feed.preparing_for(now) > self._timeout:
            self._say(f"{stuck}, while it prepares", self._feed.preparing)
            self._end_process(EXIT_STUCK)
        if self._compute.called_for(now) > self._timeout:
            self._say(stuck, self._running())
            self._end_process(EXIT_STUCK)

    def _running(self) -> list[Lease]:
        return [lease for job in self._compute.ahead()[:1] for lease in job.leases]

    def _say(self, why: str, leases: Sequence[Lease]) -> None:
        """Why the process ends; and of each task it ends for, for whoever looks for it."""
        log.critical("%s", why)
        tell(log, logging.CRITICAL, why, [lease.task_id for lease in leases])
