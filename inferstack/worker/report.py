"""Sends what has finished back to the queue, many tasks at a time."""

import asyncio
import contextlib
import json
import logging
from typing import Any

import orjson

from inferstack.lifecycle.replica import Lease
from inferstack.task import Execution, TaskError
from inferstack.wording import summary
from inferstack.worker.compute import NOT_COMPUTED, Compute, Job
from inferstack.worker.held import Held, insist
from inferstack.worker.measures import Measures
from inferstack.worker.session import Session

log = logging.getLogger(__name__)

Done = tuple[Lease, bytes, Execution]
Failed = tuple[Lease, TaskError, Execution]

STORE_GRACE = 5.0
"""Seconds that a draining replica waits for the object store; then it gives those tasks back."""
MEASURABLE = 0.02
"""Seconds from which a batch tells the capacity even if it is not full."""
DECAY = 0.2


class Report:
    """One call completes everything that finished while the call before was under way.

    Large results go to the object store first, and beside the others: a store that is slow or
    hangs holds up nobody else.
    """

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
        self.tasks = 0
        self.computed = 0.0
        """Seconds, of all batches that have finished."""
        self.completed = 0
        self.wake = asyncio.Event()
        self.progress = asyncio.Event()
        """Set whenever a batch has finished, or large results are stored."""
        self.closing = False
        """Set when no more jobs will come; `run` ends once nothing is left."""
        self._session = session
        self._held = held
        self._compute = compute
        self._finished = compute.finished
        self._batch_size = batch_size
        self._measures = measures
        self._refused: list[Failed] = []
        self._stores: dict[asyncio.Task[None], list[Done]] = {}
        self._last_finished = 0.0
        self._seconds_per_task = 0.0

    @property
    def capacity(self) -> float:
        """Tasks per second, measured over the latest batches; 0 if unknown."""
        return 1.0 / self._seconds_per_task if self._seconds_per_task else 0.0

    def orphans(self) -> int:
        """Large results on their way to the object store whose tasks are no longer held."""
        large = (lease for done in self._stores.values() for lease, _, _ in done)
        return sum(lease not in self._held for lease in large)

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
                break
        await self._end_stores()

    async def _send(self) -> None:
        done: list[Done] = []
        back: list[Lease] = []
        failed, self._refused = self._refused, []
        while self._finished:
            self._sort(self._finished.popleft(), done, failed, back)
        limit = self._session.inline_limit
        if large := [item for item in done if len(item[1]) > limit]:
            self._store(large)
        self._take_stored()
        if small := [item for item in done if len(item[1]) <= limit]:
            await self._complete(small)
        if failed:
            await insist("fail", lambda: self._session.fail(failed))
            self._held.forget(lease for lease, _, _ in failed)
        if back:
            await insist("release", lambda: self._session.release(back))
            self._held.forget(back)

    async def _complete(self, done: list[Done]) -> None:
        await insist("complete", lambda: self._session.complete(done))
        self._held.forget(lease for lease, _, _ in done)
        self.completed += len(done)

    def _store(self, large: list[Done]) -> None:
        """Completes large results beside everything else."""
        storing = asyncio.create_task(self._complete(large))
        storing.add_done_callback(lambda _: self.wake.set())
        self._stores[storing] = large

    def _take_stored(self) -> None:
        """Lets go of what is stored; raises what was not foreseen."""
        for storing in [each for each in self._stores if each.done()]:
            del self._stores[storing]
            self.progress.set()
            storing.result()

    async def _end_stores(self) -> None:
        """Waits a little for what is being stored; gives back what is not, at no charge.

        What still arrives then is refused, as from any attempt that lost its lease.
        """
        if self._stores:
            await asyncio.wait(self._stores, timeout=STORE_GRACE)
            self._take_stored()
        late = [lease for done in self._stores.values() for lease, _, _ in done]
        if late:
            log.warning("the object store hangs: %d tasks are given back", len(late))
            await insist("release", lambda: self._session.release(late))
            self._held.forget(late)

    def _sort(self, job: Job, done: list[Done], failed: list[Failed], back: list[Lease]) -> None:
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
            if output is NOT_COMPUTED:
                back.append(lease)
                continue
            result = output if type(output) is TaskError else _as_json(output)
            if isinstance(result, bytes):
                done.append((lease, result, execution))
            else:
                failed.append((lease, result, execution))
        self.batches += 1
        self.tasks += len(items)
        self.computed += job.finished - job.started
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
        return orjson.dumps(output, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as error:
        if "64-bit" in str(error):
            # Not with the escapes of ASCII, which would let lone surrogates through.
            with contextlib.suppress(TypeError, ValueError, RecursionError):
                marks = (",", ":")
                text = json.dumps(
                    output, default=_plain, allow_nan=False, ensure_ascii=False, separators=marks
                )
                return text.encode()
        return TaskError("engine-error", f"the output is not JSON: {summary(error)}")


def _plain(value: Any) -> Any:
    """Lists of a numpy array that orjson does not read itself, such as a transposed one."""
    if type(value).__module__ == "numpy":
        plain = getattr(value, "tolist", lambda: value)()
        if type(plain) is not type(value):
            return plain
    raise TypeError(f"Type is not JSON serializable: {type(value).__name__}")
