"""One request between its submit and its answer."""

import asyncio

from inferstack.lifecycle.ticket import Ticket
from inferstack.queue.codec import news_of
from inferstack.queue.types import Accepted, Enqueued, Submit
from tests.storage.samples import completed


async def test_a_task_that_ends_together_with_the_wait_is_answered_with_its_end() -> None:
    task = completed()
    ticket = Ticket(Submit(task.spec, b""), asyncio.get_running_loop(), waits=True)
    ticket.accepted(Accepted(Enqueued.OK, task.spec.task_id, 0, 1.0))
    ticket.timed_out()
    ticket.finished(news_of(task))
    await ticket.future
    assert ticket.news is not None
    assert ticket.news.task_id == task.spec.task_id
