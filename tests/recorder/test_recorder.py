import asyncio
from collections.abc import Sequence

import pytest

from inferstack.errors import QueueUnavailableError, StorageUnavailableError
from inferstack.queue.outbox import Outbox, OutboxEntry
from inferstack.queue.statistics import sample
from inferstack.queue.task_queue import prefix
from inferstack.recorder import recorder as module
from inferstack.recorder.recorder import Archived, Ends, Recorder
from inferstack.storage.history import History
from inferstack.task import Task, TaskState
from tests.recorder.work import NAME, Work


class CountingHistory:
    """The real history, with a note of every row that was written."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.written: list[str] = []
        self.refuse = 0

    async def upsert(self, tasks: Sequence[Task]) -> set[str]:
        if self.refuse:
            self.refuse -= 1
            raise StorageUnavailableError("down, says the test")
        self.written += [task.spec.task_id for task in tasks]
        return await self.history.upsert(tasks)


class CountingOutbox(Outbox):
    """The real outbox, with a note of what was loaded, and an acknowledgement that can fail."""

    def watch(self) -> "CountingOutbox":
        self.loaded: list[str] = []
        self.fail = 0
        return self

    async def load(self, entries: Sequence[OutboxEntry]) -> list[Task | None]:
        self.loaded += [entry.task_id for entry in entries]
        return await super().load(entries)

    async def archived(
        self, deployment: str, entries: Sequence[OutboxEntry], finished: Sequence[str]
    ) -> None:
        if self.fail:
            self.fail -= 1
            raise QueueUnavailableError("away, says the test")
        await super().archived(deployment, entries, finished)


@pytest.fixture
def counting(history: History) -> CountingHistory:
    return CountingHistory(history)


async def test_a_task_that_finished_meanwhile_costs_one_row_write(
    work: Work, outbox: Outbox, counting: CountingHistory, history: History
) -> None:
    ids = await work.submit(30)
    await work.finish()
    recorder = Recorder(outbox, counting)
    while await recorder.step(1):
        pass
    assert sorted(counting.written) == sorted(ids)
    for task_id in ids:
        found = await history.get(task_id)
        assert found is not None
        assert found.state is TaskState.COMPLETED


async def test_finished_tasks_leave_redis_soon_and_others_stay(
    work: Work, outbox: Outbox, history: History
) -> None:
    done = await work.submit(3)
    await work.finish()
    waiting = await work.submit(3)
    recorder = Recorder(outbox, history)
    while await recorder.step(1):
        pass
    assert await work.left() == 0
    assert (await sample(work.redis, [NAME]))[NAME].outbox == 0
    assert all([await work.forgettable(task_id) for task_id in done])
    assert not any([await work.forgettable(task_id) for task_id in waiting])
    assert await history.get(waiting[0]) is not None


async def test_an_entry_covered_by_an_earlier_load_is_only_acknowledged(
    work: Work, outbox: CountingOutbox, counting: CountingHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    await work.submit(5)
    await work.finish()
    recorder = Recorder(outbox, counting)
    # One stream entry at a time: the first tells of the submit, the second of the completion.
    monkeypatch.setattr(recorder, "_limit", 1)
    monkeypatch.setattr(module, "MAX_READ", 1)
    while await recorder.step(1):
        pass
    assert len(outbox.loaded) == len(counting.written) == 5
    assert await work.left() == 0


@pytest.fixture
def outbox(outbox: Outbox) -> CountingOutbox:
    outbox.__class__ = CountingOutbox
    assert isinstance(outbox, CountingOutbox)
    return outbox.watch()


async def test_while_the_database_is_down_nothing_is_acknowledged(
    work: Work, outbox: CountingOutbox, counting: CountingHistory
) -> None:
    ids = await work.submit(3)
    recorder = Recorder(outbox, counting)
    counting.refuse = 1
    with pytest.raises(StorageUnavailableError):
        await recorder.step(1)
    assert await work.left() > 0
    await recorder.step(1)
    assert await work.left() == 0
    assert sorted(counting.written) == sorted(ids)


async def test_a_failed_acknowledgement_leaves_no_finished_task_in_redis_for_ever(
    work: Work, outbox: CountingOutbox, counting: CountingHistory
) -> None:
    ids = await work.submit(3)
    await work.finish()
    outbox.fail = 1
    recorder = Recorder(outbox, counting)
    with pytest.raises(QueueUnavailableError):
        await recorder.step(1)
    await recorder.step(1)
    assert all([await work.forgettable(task_id) for task_id in ids])
    assert await work.left() == 0


async def test_a_task_that_redis_no_longer_has_is_acknowledged(
    work: Work, outbox: CountingOutbox, counting: CountingHistory
) -> None:
    gone, kept = await work.submit(2)
    await work.redis.delete(f"{prefix(NAME)}t:{gone}")
    await Recorder(outbox, counting).step(1)
    assert counting.written == [kept]
    assert await work.left() == 0


@pytest.mark.parametrize("spec", [b"{", b'{"task_id":1}', b"\xff", b'{"data":' + b"[" * 9999])
async def test_a_task_that_cannot_be_read_blocks_nobody(
    work: Work,
    outbox: CountingOutbox,
    counting: CountingHistory,
    caplog: pytest.LogCaptureFixture,
    spec: bytes,
) -> None:
    bad, *good = await work.submit(8)
    await work.redis.hset(f"{prefix(NAME)}t:{bad}", "spec", spec)
    await Recorder(outbox, counting).step(1)
    assert sorted(counting.written) == sorted(good)
    assert await work.left() == 0
    assert not await work.forgettable(bad)
    told = [record for record in caplog.records if "cannot be read" in record.message]
    assert {vars(record)["task_id"] for record in told} == {bad}


async def test_the_size_of_a_read_follows_the_size_of_the_entries(
    work: Work, outbox: CountingOutbox, counting: CountingHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 200)
    await work.submit(1000)
    recorder = Recorder(outbox, counting)
    monkeypatch.setattr(recorder, "_limit", 1)
    sizes = []
    while size := await recorder.step(1):
        sizes.append(size)
    assert sizes == [100, 200, 200, 200, 200, 100]


async def test_only_a_small_batch_is_followed_by_a_pause(
    outbox: CountingOutbox, counting: CountingHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(outbox, counting, linger=0.05)
    sizes = [3, module.BATCH, module.BATCH // 2, 0, 0]
    events: list[object] = []

    async def step(block_ms: int) -> int:
        events.append(size := sizes.pop(0))
        if len(sizes) == 1:
            recorder.stop()
        return size

    async def pause(seconds: float) -> None:
        events.append(f"pause {seconds}")

    monkeypatch.setattr(recorder, "step", step)
    monkeypatch.setattr(recorder, "_pause", pause)
    await recorder.run()
    assert events == [3, "pause 0.05", 1000, 500, 0, "pause 0.05", 0]


async def test_a_stop_archives_what_is_waiting(
    work: Work, outbox: CountingOutbox, counting: CountingHistory
) -> None:
    ids = await work.submit(500)
    recorder = Recorder(outbox, counting)
    recorder.stop()
    await recorder.run()
    assert sorted(counting.written) == sorted(ids)


async def test_the_loop_waits_out_an_outage(
    work: Work,
    outbox: CountingOutbox,
    counting: CountingHistory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = await work.submit(5)
    counting.refuse = 3
    recorder = Recorder(outbox, counting, linger=0.0)
    monkeypatch.setattr(module, "full_jitter", lambda *_, **__: 0.0)
    loop = asyncio.create_task(recorder.run())
    async with asyncio.timeout(20):
        while await work.left():
            await asyncio.sleep(0.01)
    recorder.stop()
    await loop
    assert sorted(counting.written) == sorted(ids)
    assert caplog.text.count("archiving waits") == 1


async def test_several_recorders_archive_each_task_to_its_last_state(
    work: Work, outbox: CountingOutbox, history: History
) -> None:
    recorders = [Recorder(outbox, history, linger=0.0) for _ in range(3)]
    loops = [asyncio.create_task(recorder.run()) for recorder in recorders]
    ids = []
    for _ in range(10):
        ids += await work.submit(50)
        await work.finish()
    for recorder in recorders:
        recorder.stop()
    await asyncio.gather(*loops)
    assert (await sample(work.redis, [NAME]))[NAME].outbox == 0
    for task_id in ids:
        found = await history.get(task_id)
        assert found is not None
        assert found.state is TaskState.COMPLETED


async def test_a_task_that_two_recorders_archive_is_counted_once(
    work: Work, outbox: CountingOutbox, history: History
) -> None:
    ids = await work.submit(20)
    await work.finish()
    counted: list[str] = []

    def count(tasks: Sequence[Task]) -> None:
        counted.extend(task.spec.task_id for task in tasks)

    outbox.fail = 1
    recorders = [Recorder(outbox, history, written=count) for _ in range(2)]
    with pytest.raises(QueueUnavailableError):
        await recorders[0].step(1)
    for recorder in (*recorders, recorders[0]):
        await recorder.step(1)
    assert sorted(counted) == sorted(ids)
    assert await work.left() == 0


async def test_a_task_that_ran_again_after_a_failover_leaves_redis_too(
    work: Work, outbox: CountingOutbox, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAME_END", 0.0)
    (task_id,) = await work.submit(1)
    before = await work.saved()
    await work.finish()
    recorder = Recorder(outbox, history)
    await recorder.step(1)
    await work.went_back(before)
    assert await work.finish() == [task_id]
    await recorder.step(1)
    assert await work.left() == 0
    assert await work.forgettable(task_id)


async def test_a_task_whose_acknowledgement_a_failover_lost_leaves_redis_too(
    work: Work, outbox: CountingOutbox, history: History
) -> None:
    (task_id,) = await work.submit(1)
    await work.finish()
    before = await work.saved()
    recorder = Recorder(outbox, history)
    while await recorder.step(1):
        pass
    assert await work.forgettable(task_id)
    await work.went_back(before)
    assert not await work.forgettable(task_id)
    while await recorder.step(1):
        pass
    assert await work.left() == 0
    assert await work.forgettable(task_id)


async def test_a_task_whose_end_a_failover_lost_while_it_was_archived_is_not_forgotten(
    work: Work, outbox: CountingOutbox
) -> None:
    (task_id,) = await work.submit(1)
    before = await work.saved()
    await work.finish()
    entries = await outbox.read(100)
    await work.went_back(before)
    await outbox.archived(NAME, entries, [task_id])
    assert not await work.forgettable(task_id)
    assert await work.finish() == [task_id]


async def test_a_task_cancelled_after_a_failover_lost_its_claim_is_archived_as_cancelled(
    work: Work, outbox: CountingOutbox, history: History
) -> None:
    (task_id,) = await work.submit(1)
    before = await work.saved()
    for _ in range(2):
        (claim,) = await work.queue.claim("host:1:a", 1)
        await work.queue.release("host:1:a", [(claim.task_id, claim.attempt)])
    await work.queue.claim("host:1:a", 1)
    recorder = Recorder(outbox, history)
    await recorder.step(1)
    found = await history.get(task_id)
    assert found is not None
    assert found.state is TaskState.RUNNING
    await work.went_back(before)
    await work.queue.cancel(task_id)
    await recorder.step(1)
    found = await history.get(task_id)
    assert found is not None
    assert found.state is TaskState.CANCELLED
    assert await work.forgettable(task_id)


def test_the_memory_of_ends_is_bounded() -> None:
    ends = Ends(limit=2)
    ends.add([], [Archived(NAME, name, 5.0) for name in ("a", "b", "c")])
    entries = [OutboxEntry(NAME, b"5000-1", name, 2) for name in ("a", "b", "c")]
    assert [ends.covers(entry) for entry in entries] == [False, True, True]
    # One that was made anew since then, under the same id.
    assert not ends.covers(entries[1]._replace(entry_id=b"5300-0"))


def test_a_task_that_has_not_ended_is_not_remembered() -> None:
    ends = Ends()
    ends.add([], [Archived(NAME, "a", None)])
    assert not ends.covers(OutboxEntry(NAME, b"1-0", "a", 1))


def test_a_change_that_was_acknowledged_before_is_not_covered() -> None:
    ends = Ends()
    entries = [OutboxEntry(NAME, b"5000-%d" % n, "a", 2) for n in (9, 10, 11)]
    ends.add(entries[1::-1], [Archived(NAME, "a", 5.0)])
    assert [ends.covers(entry) for entry in entries] == [False, False, True]
    assert ends.covers(entries[0]._replace(deployment="other:1"))
    # What came back is acknowledged again, from the oldest on.
    ends.add(entries[:1], [])
    assert not ends.covers(entries[1])
