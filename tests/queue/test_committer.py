"""Group commit: nothing waits for a timer, nothing is left behind, nothing grows without end."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from inferstack.errors import InferstackError, QueueUnavailableError
from inferstack.queue import committer
from inferstack.queue.committer import GROUP, IN_FLIGHT, GroupCommitter
from inferstack.queue.types import Accepted, Enqueued, Submit
from inferstack.task import TaskSpec

pytestmark = pytest.mark.asyncio


class Slip:
    """A ticket that notes what became of it."""

    def __init__(self, number: int) -> None:
        spec = TaskSpec(task_id=str(number), model="m", model_version=1, tenant="t")
        self.submit = Submit(spec, b"")
        self.outcome: Accepted | InferstackError | None = None

    def accepted(self, answer: Accepted) -> None:
        assert self.outcome is None
        self.outcome = answer

    def refused(self, error: InferstackError) -> None:
        assert self.outcome is None
        self.outcome = error


class Queue:
    """Answers after a turn of the loop; can be told to fail."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.ids: list[list[str]] = []
        self.failures = 0
        self.in_flight = self.most_in_flight = 0

    async def enqueue(
        self, submits: Sequence[Submit], api: str, limit: Any, *, first_sent: float | None
    ) -> list[Accepted]:
        assert (first_sent is None) == ([s.spec.task_id for s in submits] not in self.ids)
        self.groups.append(len(submits))
        self.ids.append([submit.spec.task_id for submit in submits])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if self.failures:
            self.failures -= 1
            raise QueueUnavailableError("away")
        return [Accepted(Enqueued.OK, submit.spec.task_id, 0, 1.0) for submit in submits]


def make(queue: Queue, *, delays: Sequence[float] = ()) -> GroupCommitter:
    return GroupCommitter(queue, "api", delays=delays)  # type: ignore[arg-type]


async def test_a_lone_ticket_is_committed_at_once() -> None:
    queue, slip = Queue(), Slip(1)
    commits = make(queue)
    commits.add(slip)
    await commits.drain()
    assert queue.ids == [["1"]]
    assert isinstance(slip.outcome, Accepted)


async def test_many_tickets_share_few_commits_and_each_gets_its_own_answer() -> None:
    queue, slips = Queue(), [Slip(number) for number in range(5000)]
    commits = make(queue)
    for slip in slips:
        commits.add(slip)
    await commits.drain()
    answers = [slip.outcome for slip in slips]
    assert [a.task_id for a in answers if isinstance(a, Accepted)] == [str(n) for n in range(5000)]
    assert max(queue.groups) <= GROUP
    assert len(queue.groups) < 5000 / 20
    assert 1 < queue.most_in_flight <= IN_FLIGHT


async def test_a_ticket_that_comes_as_the_last_commit_ends_is_not_left_behind() -> None:
    queue = Queue()
    commits = make(queue)
    slips = [Slip(number) for number in range(200)]
    for slip in slips:
        commits.add(slip)
        await asyncio.sleep(0)
    await commits.drain()
    assert all(isinstance(slip.outcome, Accepted) for slip in slips)


async def test_a_lost_answer_is_asked_for_again_under_the_same_id() -> None:
    queue, slip = Queue(), Slip(1)
    queue.failures = 2
    commits = make(queue, delays=(0.0, 0.0))
    commits.add(slip)
    await commits.drain()
    assert queue.ids == [["1"]] * 3
    assert isinstance(slip.outcome, Accepted)


async def test_when_the_queue_stays_away_everyone_who_waits_is_told() -> None:
    queue, slips = Queue(), [Slip(number) for number in range(1000)]
    queue.failures = 10**6
    commits = make(queue, delays=(0.0,))
    for slip in slips:
        commits.add(slip)
    await commits.drain()
    assert all(isinstance(slip.outcome, QueueUnavailableError) for slip in slips)
    assert sum(queue.groups) < 1000 * 2


async def test_too_many_tickets_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "MOST_WAITING", 10)
    queue, slips = Queue(), [Slip(number) for number in range(20)]
    commits = make(queue)
    for slip in slips:
        commits.add(slip)
    assert sum(isinstance(slip.outcome, QueueUnavailableError) for slip in slips) == 10
    await commits.drain()
    assert sum(isinstance(slip.outcome, Accepted) for slip in slips) == 10
