"""The one thread that calls the model."""

import contextlib
import logging
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from inferstack import failpoint
from inferstack.batching import Batch, CostFit
from inferstack.engines.base import Engine, device_lost
from inferstack.errors import EngineError, InferstackError, OutputMismatchError
from inferstack.lifecycle.replica import Lease
from inferstack.task import TaskError
from inferstack.wording import encodable, summary
from inferstack.worker.held import Held

log = logging.getLogger(__name__)

MAX_TRACEBACK = 4000
TELL_EVERY = 60.0
"""Seconds between two lines about batches that were halved for nothing."""
NOT_COMPUTED = object()
"""In place of an output: a drain came first, its task goes back."""


class Work:
    """A claimed task on its way through the replica."""

    __slots__ = ("cost", "lease", "rank", "suspect", "value")

    def __init__(self, lease: Lease, value: Any, cost: float, rank: int) -> None:
        """Args: value, cost: the prepared input. rank: number of its lane, 0 first."""
        self.lease = lease
        self.value = value
        self.cost = cost
        self.rank = rank
        self.suspect = lease.crashes > 0


class Job:
    """One batch, from the plan to its outputs."""

    __slots__ = ("batch", "claimed", "finished", "outputs", "started")

    def __init__(self, batch: Batch[Work], claimed: float) -> None:
        """Args: claimed: when its tasks were claimed, by the monotonic clock."""
        self.batch = batch
        self.claimed = claimed
        self.started = 0.0
        self.finished = 0.0
        self.outputs: list[Any] = []
        """One for each item of the batch: an output, or in its place a TaskError, NOT_COMPUTED, or
        None where nobody wants it any more."""

    def keep(self, held: Held) -> None:
        """Leaves out tasks that are no longer wanted."""
        items = self.batch.items
        wanted = [work for work in items if work.lease in held]
        if len(wanted) < len(items):
            self.batch = self.batch._replace(items=wanted)

    @property
    def leases(self) -> list[Lease]:
        """Of the tasks in the batch."""
        return [work.lease for work in self.batch.items]


class Compute:
    """Runs jobs in order. Everything here but `_main` and below is for the event loop."""

    def __init__(
        self, engine: Engine, fit: CostFit, held: Held, wake: Callable[[], None], timeout: float
    ) -> None:
        """Starts nothing.

        Args:
            engine: a loaded model.
            fit: learns how long batches take.
            held: tells which tasks are still wanted when the model is called.
            wake: called in the compute thread when there is something in `finished`.
            timeout: seconds after which no further call is made for a batch that goes wrong.
        """
        self.draining = False
        """Set when no further call is to be made for a batch that goes wrong."""
        self.finished: deque[Job] = deque()
        self.lost: BaseException | None = None
        """Why the process cannot go on."""
        self.busy = 0.0
        """Seconds spent in finished batches."""
        self._engine = engine
        self._fit = fit
        self._held = held
        self._wake = wake
        self._timeout = timeout
        self._called = 0.0
        self._calls = 0
        self._told = -TELL_EVERY
        self._ahead: deque[Job] = deque()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="compute", daemon=True)

    def start(self) -> None:
        """Starts the thread.

        Raises:
            EngineError: the system starts none.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise EngineError(
                f"{error}: raise the limit of processes of this user (`ulimit -u`) or container"
            ) from error

    def stop(self) -> None:
        """Ends the thread once all jobs are done; does not wait for it."""
        self._jobs.put(None)

    def put(self, job: Job) -> None:
        """Hands over a job; its batch must have begun."""
        self._ahead.append(job)
        self._jobs.put(job)

    def recall(self) -> list[Job]:
        """Takes back the jobs that have not started."""
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while (job := self._jobs.get_nowait()) is not None:
                self._ahead.remove(job)
                jobs.append(job)
        return jobs

    def ahead(self) -> list[Job]:
        """Jobs that are handed over and not finished, the running one first."""
        # A copy: the compute thread takes jobs off at any time.
        return list(self._ahead)

    def running_for(self, now: float) -> float:
        """Seconds that the running batch has taken; 0 if none runs."""
        jobs = self.ahead()
        return now - jobs[0].started if jobs and jobs[0].started else 0.0

    def called_for(self, now: float) -> float:
        """Seconds that the running call of the model has taken; 0 if none runs."""
        called = self._called
        return now - called if called else 0.0

    def remaining(self, now: float) -> float | None:
        """Predicted seconds until all jobs are done; None if nothing is known."""
        jobs = self.ahead()
        if not jobs:
            return 0.0
        model = self._fit.model()
        if model is None:
            return None
        total = sum(model.seconds(len(job.batch.items), job.batch.longest) for job in jobs)
        return max(0.0, total - self.running_for(now))

    def _main(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.keep(self._held)
            job.started = self._called = time.monotonic()
            failpoint.hit("before-predict")
            self._calls = 0
            failure = self._run(job)
            failpoint.hit("after-predict")
            self._called = 0.0
            if self.lost is not None:
                # Its outputs say nothing about its tasks. The worker ends the process; the queue
                # counts that against the batch, and finds out which of its inputs was to blame.
                self._wake()
                return
            job.finished = time.monotonic()
            self.busy += job.finished - job.started
            if self._calls == 1:
                # What was halved took longer for its bad input, which says nothing of the next.
                items = len(job.batch.items)
                self._fit.observe(items, job.batch.longest, job.finished - job.started)
            elif failure is not None:
                self._tell_if_for_nothing(job, failure)
            self.finished.append(job)
            self._ahead.popleft()
            self._wake()

    def _run(self, job: Job) -> TaskError | None:
        """Computes the outputs of a job; returns the first error.

        A batch that goes wrong is halved until the poisonous item is alone. Larger parts come
        first: if time runs out, few are left.
        """
        outputs: dict[Work, Any] = {}
        # Not the exception itself: it holds on to the memory of the call that raised it.
        first: TaskError | None = None
        parts = deque([job.batch.items])
        while parts and self.lost is None:
            part = [work for work in parts.popleft() if work.lease in self._held]
            if not part:
                continue
            if first is not None and (instead := self._instead(job, first)) is not None:
                outputs |= dict.fromkeys(part, instead)
                continue
            try:
                outputs |= zip(part, self._call(part), strict=True)
            # SystemExit and the like in a model's code must not end the thread either.
            except BaseException as error:
                first = first or as_task_error(error)
                if device_lost(error):
                    self.lost = error
                elif len(part) == 1:
                    outputs[part[0]] = as_task_error(error)
                else:
                    half = len(part) // 2
                    parts += [part[:half], part[half:]]
        job.outputs = [outputs.get(work) for work in job.batch.items]
        return first

    def _call(self, items: list[Work]) -> list[Any]:
        self._called = time.monotonic()
        self._calls += 1
        outputs = list(self._engine.predict([work.value for work in items]))
        if len(outputs) != len(items):
            raise OutputMismatchError(f"{len(items)} inputs gave {len(outputs)} outputs")
        return outputs

    def _instead(self, job: Job, first: TaskError) -> Any:
        """What stands for the outputs that are not there yet if no further call may be made."""
        if self.draining:
            return NOT_COMPUTED
        if time.monotonic() - job.started <= self._timeout:
            return None
        # Each call may take this long, and a batch could need many: others wait meanwhile, and the
        # circuit breaker hears of no failure before the job is over.
        within = f"was not halved to the end within {self._timeout:g} s"
        message = f"its batch failed and {within}: {first.message}"
        return TaskError(EngineError.slug, message, EngineError.retryable, first.traceback)

    def _tell_if_for_nothing(self, job: Job, first: TaskError) -> None:
        """Tells that a batch was halved without a bad input in it: each one may be, unseen."""
        now = time.monotonic()
        if now - self._told < TELL_EVERY:
            return
        if any(type(each) is TaskError or each is NOT_COMPUTED for each in job.outputs):
            return
        self._told = now
        what = "a batch of %d took %d calls, though no input of it is bad: %s"
        log.warning(what, len(job.batch.items), self._calls, first.message)


def as_task_error(error: BaseException) -> TaskError:
    """What the owner of a task reads when its attempt failed with this exception."""
    kind = type(error) if isinstance(error, InferstackError) else EngineError
    text = error.detail if isinstance(error, InferstackError) else summary(error)
    trace = "".join(traceback.format_exception(error))
    return TaskError(
        type=kind.slug,
        message=encodable(text),
        retryable=kind.retryable,
        traceback=encodable(trace[-MAX_TRACEBACK:]),
    )
