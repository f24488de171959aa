"""Claims tasks, plans batches and hands them to the compute thread."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from inferstack.batching import Batch, CostFit, CostModel, Limits, plan
from inferstack.engines.base import Engine, Prepared
from inferstack.errors import InferstackError
from inferstack.lifecycle.replica import Lease
from inferstack.task import Priority
from inferstack.telemetry.logs import tell
from inferstack.worker.compute import Compute, Job, Work, as_task_error
from inferstack.worker.held import Held, insist
from inferstack.worker.measures import Measures
from inferstack.worker.report import Report
from inferstack.worker.session import Session

log = logging.getLogger(__name__)

IDLE_WAIT = 1.0
"""Seconds that an idle replica waits for the bell at a time; bounds how long a drain takes."""
PAUSE = 0.5
"""Seconds between two tries while the queue does not answer."""
SLACK = 0.1
"""Share of compute time given up for earlier results, see `batching.Limits`."""
HANDLING = 0.001
"""Seconds of queue traffic that a batch costs beside its compute time."""
WINDOWS_HELD = 4
"""Windows that may be held before claiming stops: bounds memory while results cannot be sent."""
RANKS = {priority: rank for rank, priority in enumerate(Priority)}


class Appetite(NamedTuple):
    """How much a replica claims, and when."""

    batch_size: int
    lookahead: int = 1
    """Batches claimed at once, to sort inputs by cost."""
    batch_wait: float = 0.0
    """Seconds that a free device waits for a batch to fill, from its first task."""

    @property
    def window(self) -> int:
        """Tasks claimed at once."""
        return self.batch_size * self.lookahead


class Feed:
    """Keeps one batch ahead of the device, and no more."""

    def __init__(
        self,
        session: Session,
        engine: Engine,
        compute: Compute,
        report: Report,
        held: Held,
        fit: CostFit,
        appetite: Appetite,
        measures: Measures,
    ) -> None:
        """Args: held: what is claimed goes there. fit: predicts how long batches take."""
        self.draining = False
        self._session = session
        self._engine = engine
        self._compute = compute
        self._report = report
        self._held = held
        self._fit = fit
        self._appetite = appetite
        self._measures = measures
        self._limits = Limits(appetite.batch_size, SLACK)
        self._claim_time = 0.005
        self._preparing = 0.0
        self.preparing: list[Lease] = []
        """What the call of `prepare` that runs now is for."""

    async def run(self) -> None:
        """Feeds until `draining` is set; gives back what was claimed and does not compute."""
        while True:
            await self._until_hungry()
            if self.draining:
                break
            started = time.monotonic()
            leases = await self._claim(self._appetite.window)
            if not leases:
                await self._bell(IDLE_WAIT)
                continue
            leases += await self._fill(started, len(leases))
            for batch in plan(await self._prepare(leases), self._limits, self._cost_model()):
                await self._hand_over(batch, started)
        for job in self._compute.recall():
            await self._give_back(job.leases)

    async def _until_hungry(self) -> None:
        """Waits while what is handed over keeps the device busy long enough.

        The next window is claimed late, when the rest is predicted to end within twice the time
        of a claim: until then, tasks of a higher priority still come first and the window gets
        fuller. It is claimed at once while nothing can be predicted.
        """
        while (self._full() or len(self._compute.ahead()) > 1) and not self.draining:
            await self._progressed(IDLE_WAIT)
        while not self.draining:
            remaining = self._compute.remaining(time.monotonic())
            spare = 0.0 if remaining is None else remaining - max(2 * self._claim_time, 0.005)
            if spare <= 0:
                return
            await self._progressed(min(spare, IDLE_WAIT))

    def _full(self) -> bool:
        """Whether too much is held, results of cancelled tasks that are being stored included."""
        held = len(self._held) + self._report.orphans()
        return held > WINDOWS_HELD * self._appetite.window

    async def _progressed(self, seconds: float) -> None:
        progress = self._report.progress
        progress.clear()
        try:
            async with asyncio.timeout(seconds):
                await progress.wait()
        except TimeoutError:
            return

    async def _claim(self, limit: int) -> list[Lease]:
        started = time.monotonic()
        try:
            leases = await self._session.claim(limit)
        except InferstackError as error:
            log.warning("cannot claim: %s", error)
            await asyncio.sleep(PAUSE)
            return []
        taken = time.monotonic() - started
        self._claim_time += 0.2 * (taken - self._claim_time)
        if leases:
            self._measures.claim(taken)
        self._held.add(leases)
        return leases

    async def _bell(self, seconds: float) -> None:
        try:
            await self._session.wait(seconds)
        except InferstackError as error:
            log.warning("cannot wait for work: %s", error)
            await asyncio.sleep(PAUSE)

    async def _fill(self, started: float, count: int) -> list[Lease]:
        """More tasks for a batch that is not full, as long as the device is free."""
        more: list[Lease] = []
        until = started + self._appetite.batch_wait
        while not self._compute.ahead() and not self.draining:
            missing = self._appetite.batch_size - count - len(more)
            left = until - time.monotonic()
            if missing <= 0 or left <= 0:
                break
            await self._bell(left)
            more += await self._claim(missing)
        return more

    def preparing_for(self, now: float) -> float:
        """Seconds that the call of `prepare` in its thread has taken; 0 if none runs."""
        began = self._preparing
        return now - began if began else 0.0

    def _prepared_in_time(self, leases: list[Lease]) -> list[Prepared | BaseException | None]:
        """What the engine makes of inputs; code of the model has its time for each of them.

        None in place of those that nobody wants any more, and of those that a drain came before.
        """
        by_itself = self._engine.prepares_by_model
        made: list[Prepared | BaseException | None] = []
        for some in ([lease] for lease in leases) if by_itself else (leases,):
            if by_itself and (self.draining or some[0] not in self._held):
                made.append(None)
                continue
            self.preparing, self._preparing = some, time.monotonic()
            made += _prepared(self._engine, [lease.spec.data for lease in some])
        self.preparing, self._preparing = [], 0.0
        return made

    async def _prepare(self, leases: list[Lease]) -> list[Work]:
        if not self._engine.prepares_by_model:
            return await self._prepare_some(leases)
        # A crash counts here too: suspects come alone, as in their batches, and nobody beside them.
        while any(job.batch.exclusive for job in self._compute.ahead()):
            if self.draining:
                await self._give_back(leases)
                return []
            await self._progressed(IDLE_WAIT)
        trusted = [lease for lease in leases if not lease.crashes]
        works = await self._prepare_noted(trusted) if trusted else []
        for lease in leases:
            if lease.crashes:
                while self._compute.ahead() and not self.draining:
                    await self._progressed(IDLE_WAIT)
                if self.draining:
                    await self._give_back([lease])
                else:
                    works += await self._prepare_noted([lease])
        return works

    async def _prepare_noted(self, leases: list[Lease]) -> list[Work]:
        begun = [lease for job in self._compute.ahead() for lease in job.leases] + leases
        await insist("begin", lambda: self._session.begin(begun))
        return await self._prepare_some(leases)

    async def _prepare_some(self, leases: list[Lease]) -> list[Work]:
        prepared: Sequence[Prepared | BaseException | None]
        if self._engine.prepares_quickly:
            prepared = _prepared(self._engine, [lease.spec.data for lease in leases])
        else:
            prepared = await asyncio.to_thread(self._prepared_in_time, leases)
        works: list[Work] = []
        back: list[Lease] = []
        for lease, made in zip(leases, prepared, strict=True):
            if made is None:
                back.append(lease)
            elif isinstance(made, BaseException):
                self._report.refuse(lease, as_task_error(made))
            else:
                works.append(Work(lease, made.value, made.cost, RANKS[lease.spec.priority]))
        if back := [lease for lease in back if lease in self._held]:
            await self._give_back(back)
        return works

    def _cost_model(self) -> CostModel:
        model = self._fit.model()
        if model is None:
            return CostModel()
        return CostModel(model.overhead + HANDLING, model.rate)

    async def _hand_over(self, batch: Batch[Work], claimed: float) -> None:
        """Begins a batch and hands it over, at most one ahead of the one that computes.

        A suspect begins when the device is idle, and nothing begins beside it.
        """
        while not self.draining and (ahead := self._compute.ahead()):
            alone = batch.exclusive or ahead[0].batch.exclusive
            if len(ahead) < 2 and not alone:
                break
            await self._progressed(IDLE_WAIT)
        items = [work for work in batch.items if work.lease in self._held]
        if self.draining:
            await self._give_back([work.lease for work in items])
        elif items:
            job = Job(batch._replace(items=items), claimed)
            # The note in the queue names all that may be computing, also the batch under way.
            ahead = self._compute.ahead()
            begun = [lease for other in [*ahead, job] for lease in other.leases]
            await insist("begin", lambda: self._session.begin(begun))
            self._measures.planned(job.batch)
            ids, worker = (work.lease.task_id for work in items), self._session.worker
            tell(log, logging.DEBUG, "its batch begins", ids, worker=worker, size=len(items))
            self._compute.put(job)

    async def _give_back(self, leases: list[Lease]) -> None:
        await insist("release", lambda: self._session.release(leases))
        self._held.forget(leases)


def _prepared(engine: Engine, inputs: list[Any]) -> list[Prepared | BaseException]:
    """What the engine makes of inputs; if it raises for all of them, of each by itself."""
    try:
        return list(engine.prepare(inputs))
    # SystemExit and the like in a library's code must not end the loop.
    except BaseException as error:
        if len(inputs) == 1:
            return [error]
    return [made for data in inputs for made in _prepared(engine, [data])]
