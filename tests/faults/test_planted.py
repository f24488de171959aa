"""The suite is worth something only if it finds bugs: each of these is one that was put in."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from inferstack.queue import scripts
from inferstack.queue.outbox import Outbox, OutboxEntry
from inferstack.queue.task_queue import TaskQueue
from inferstack.queue.types import Accepted, Enqueued, Submit
from inferstack.recorder.recorder import Source
from inferstack.task import Task
from tests.faults.actors import Archiver
from tests.faults.simulator import simulate
from tests.faults.tally import Tally, count
from tests.faults.world import NAME, World

if TYPE_CHECKING:
    from redis.asyncio import Redis

SECONDS = 4.0
SETTLE = 4.0
"""Seconds; what a bug leaves behind it leaves for ever."""
TRIES = 8
"""Seeds within which a bug must be found."""


def broken(seed: int, wanted: str, make: Callable[[World], Archiver] = Archiver) -> set[str]:
    """The invariants that some seeds find broken, up to the seed that finds the wanted one.

    Args:
        seed: the first.
        wanted: such as `I4`.
        make: the recorder.
    """
    found: set[str] = set()
    for number in range(seed, seed + TRIES):
        tally = simulate(number, SECONDS, make, settle=SETTLE)
        count("planted bugs", Tally(faults=tally.faults, accepted=tally.accepted))
        print(*tally.violations[:5], sep="\n")
        # A violation begins with what it breaks: `I5, I6: left after 4 s`.
        found |= {name for each in tally.violations for name in each.split(":")[0].split(", ")}
        if wanted in found:
            break
    return found


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("script", "right", "wrong", "invariant"),
    [
        pytest.param(
            "complete", "if runs(row, worker, attempt)", "if pending(row)", "I4", id="no-fence"
        ),
        pytest.param(
            "tick",
            "requeue(id, row)\n      woken",
            "woken",
            "I1",
            id="reaper-forgets-to-requeue",
        ),
        pytest.param(
            "enqueue", "if met and", "if false and", "I5", id="a-repeat-is-taken-for-a-new-task"
        ),
        pytest.param(
            "complete", "finish:flush()", "finish.changed = {} finish:flush()", "I1", id="no-outbox"
        ),
        pytest.param(
            "complete", "'tenants', tenant, -count)", "'tenants', tenant, 0)", "I5", id="no-count"
        ),
    ],
)
def test_a_wrong_script_is_caught(
    seed: int, monkeypatch: pytest.MonkeyPatch, script: str, right: str, wrong: str, invariant: str
) -> None:
    real = scripts.load(script)
    assert real.source.count(right) == 1
    planted = real.source.replace(right, wrong)
    made = scripts.Script(planted, hashlib.sha1(planted.encode()).hexdigest())
    load = scripts.load
    monkeypatch.setattr(scripts, "load", lambda name: made if name == script else load(name))
    assert invariant in broken(seed, invariant)


class HastyOutbox(Outbox):
    """Acknowledges what is only about to be committed."""

    async def load(self, entries: Sequence[OutboxEntry]) -> list[Task | None]:
        tasks = await super().load(entries)
        finished = [task.spec.task_id for task in tasks if task is not None and task.state.terminal]
        await self.archived(NAME, entries, finished)
        return tasks


class HastyArchiver(Archiver):
    """A recorder with such an outbox."""

    def source(self, redis: "Redis") -> Source:
        return HastyOutbox(redis, [NAME], self.world.settings)


@pytest.mark.timeout(200)
def test_an_archive_acknowledged_before_its_commit_is_caught(seed: int) -> None:
    assert "I1" in broken(seed, "I1", HastyArchiver)


@pytest.mark.timeout(200)
def test_idempotency_outside_the_script_is_caught(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TaskQueue.enqueue

    async def enqueue(
        self: TaskQueue, submits: Sequence[Submit], *args: Any, **options: Any
    ) -> list[Accepted]:
        """Looks, then enqueues, then writes the key: three steps where one is needed."""
        keys = [f"outside:{submit.fingerprint}" for submit in submits]
        held: list[Any] = [
            await self._redis.get(key) if key != "outside:" else None for key in keys
        ]
        fresh = [s._replace(fingerprint="") for s, h in zip(submits, held, strict=True) if not h]
        answers = iter(await real(self, [_without_key(s) for s in fresh], *args, **options))
        found = []
        for key, holder in zip(keys, held, strict=True):
            if holder:
                found.append(Accepted(Enqueued.DUPLICATE, holder.decode(), 0, 0.0))
                continue
            answer = next(answers)
            found.append(answer)
            if key != "outside:":
                await self._redis.set(key, answer.task_id)
        return found

    monkeypatch.setattr(TaskQueue, "enqueue", enqueue)
    assert "I3" in broken(seed, "I3")


def _without_key(submit: Submit) -> Submit:
    return submit._replace(spec=msgspec.structs.replace(submit.spec, idempotency_key=None))
