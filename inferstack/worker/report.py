"""Sends what has finished back to the queue, many tasks at a time."""

import asyncio
import contextlib
import json
from typing import Any

import orjson

from inferstack.engines.base import summary
from inferstack.lifecycle.replica import Lease
from inferstack.task import Execution, TaskError
from inferstack.worker.compute import Compute, Job
from inferstack.worker.held import Held, insist
from inferstack.worker.measures import Measures
from inferstack.worker.session import Session

Done = tuple[Lease, bytes, Execution]
Failed = tuple[Lease, TaskError, Execution]

MEASURABLE = 0.02
"""Seconds from which a batch tells the capacity even if it is not full."""
DECAY = 0.2


class Report:
    """One call completes everything that finished while the call before was under way."""

    def __init__(
        self,
        session: Session,
        held: Held,
        compute: Compute,
        batch_size: int,
        measures: Measures,
    ) -> None:
        """Args: held: what is reported leaves it. compute: where finished jobs come from."""
        self.batches = 0
        self.completed = 0
        self.wake = asyncio.Event()
        self.closing = False
        """Set when no more jobs will come; `run` ends once nothing is left."""
        self._session = session
        self._held = held
        self._compute = compute
        self._finished = compute.finished
        self._batch_size = batch_size
        self._measures = measures
        self._refused: list[Failed] = []
        self._last_finished = 0.0
        self._seconds_per_task = 0.0

    @property
    def capacity(self) -> float:
        """Tasks per second, measured over the latest batches; 0 if unknown."""
        return 1.0 / self._seconds_per_task if self._seconds_per_task else 0.0

    def refuse(self, lease: Lease, error: TaskError) -> None:
        """Fails a task whose input the model does not take."""
        self._refused.append((lease, error, Execution(self._session.worker)))
        self.wake.set()

    async def run(self) -> None:
        """Reports until `closing` is set and nothing is left."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            await self._send()
            if self.closing and not (self._compute.ahead() or self._finished or self._refused):
                return

    async def _send(self) -> None:
        done: list[Done] = []
        failed, self._refused = self._refused, []
        while self._finished:
            self._sort(self._finished.popleft(), done, failed)
        if done:
            await insist("complete", lambda: self._session.complete(done))
            self._held.forget(lease for lease, _, _ in done)
            self.completed += len(done)
        if failed:
            await insist("fail", lambda: self._session.fail(failed))
            self._held.forget(lease for lease, _, _ in failed)

    def _sort(self, job: Job, done: list[Done], failed: list[Failed]) -> None:
        """Turns outputs into JSON; drops those of tasks that are no longer held."""
        items = job.batch.items
        if not items:
            return
        execution = Execution(
            worker=self._session.worker,
            batch_wait_ms=round((job.started - job.claimed) * 1000, 3),
            compute_ms=round((job.finished - job.started) * 1000, 3),
            batch_size=len(items),
        )
        before = len(failed)
        for work, output in zip(items, job.outputs, strict=True):
            lease = work.lease
            if lease not in self._held:
                continue
            result = output if type(output) is TaskError else _as_json(output)
            if isinstance(result, bytes):
                done.append((lease, result, execution))
            else:
                failed.append((lease, result, execution))
        self.batches += 1
        self._measures.batch(len(items), job.finished - job.started, len(failed) - before)
        self._measure(job)

    def _measure(self, job: Job) -> None:
        """Learns the capacity from batches that are full or long.

        The time of a batch runs from the end of the one before, or from its claim if the
        replica was idle in between: queue traffic counts.
        """
        taken = job.finished - max(self._last_finished, job.claimed)
        self._last_finished = job.finished
        count = len(job.batch.items)
        if taken <= 0 or (count < self._batch_size / 2 and taken < MEASURABLE):
            return
        latest = taken / count
        if self._seconds_per_task:
            latest = self._seconds_per_task + DECAY * (latest - self._seconds_per_task)
        self._seconds_per_task = latest


def _as_json(output: Any) -> bytes | TaskError:
    try:
        return orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        if "64-bit" in str(error):
            with contextlib.suppress(TypeError, ValueError):
                return json.dumps(output, allow_nan=False, separators=(",", ":")).encode()
        return TaskError("engine-error", f"the output is not JSON: {summary(error)}")
