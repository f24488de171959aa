"""One request between its submit and its answer."""

import asyncio

from inferstack.errors import InferstackError
from inferstack.queue.codec import News
from inferstack.queue.types import Accepted, Enqueued, Submit


class Ticket:
    """Resolves `future` once: when accepted, or, if it waits, when the task has finished.

    A waiting request wakes up once and not twice: acceptance is only noted.
    """

    __slots__ = ("answer", "future", "news", "submit", "waits")

    def __init__(self, submit: Submit, loop: asyncio.AbstractEventLoop, *, waits: bool) -> None:
        """Args: waits: whether to resolve on completion rather than on acceptance."""
        self.submit = submit
        self.waits = waits
        self.answer: Accepted | None = None
        self.news: News | None = None
        """How it finished, also if that came together with the end of the wait."""
        self.future: asyncio.Future[None] = loop.create_future()

    def accepted(self, answer: Accepted) -> None:
        """The queue has answered; only a task of this request is worth waiting for here."""
        self.answer = answer
        if not (self.waits and self._is_own(answer)):
            self._resolve()

    @property
    def unused(self) -> bool:
        """Whether the queue has said that this task will never exist."""
        return self.answer is not None and not self._is_own(self.answer)

    @property
    def holder(self) -> str:
        """The id of the task that the queue has named: this one, or that which has the key."""
        assert self.answer is not None, "the queue has answered"
        return self.answer.task_id

    def _is_own(self, answer: Accepted) -> bool:
        """Whether the task exists: accepted now, or, if a commit was repeated, at its first try."""
        if answer.status is Enqueued.DUPLICATE:
            return answer.task_id == self.submit.spec.task_id
        return answer.status is Enqueued.OK

    def refused(self, error: InferstackError) -> None:
        """The queue could not be reached."""
        if not self.future.done():
            self.future.set_exception(error)

    def finished(self, news: News) -> None:
        """The task has finished."""
        self.news = news
        self._resolve()

    def timed_out(self) -> None:
        """Nobody waits any longer; the acceptance itself is still awaited if it is open."""
        if self.answer is None:
            self.waits = False
        else:
            self._resolve()

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)
