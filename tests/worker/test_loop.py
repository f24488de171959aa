"""The worker against a queue in memory: every promise of the loop."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest

from inferstack.batching import CostFit
from inferstack.deployment import Deployment
from inferstack.engines.base import DeviceLostError, Prepared
from inferstack.errors import InferstackError, InvalidInputError
from inferstack.task import Priority
from inferstack.telemetry.pulse import EXIT_STUCK
from inferstack.worker import measures, report
from inferstack.worker.feed import Appetite
from inferstack.worker.loop import Worker

from .fakes import (
    FakeEngine,
    HangingStore,
    MemorySession,
    deployment,
    lease,
    settings,
    slowly,
    work_off,
)

DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


async def test_every_task_is_completed_once_with_its_own_output() -> None:
    session = MemorySession([lease(n) for n in range(500)])
    await work_off(session, FakeEngine(lambda values: [{"twice": 2 * v["n"]} for v in values]))
    results = {key: orjson.loads(body) for key, (body, _) in session.done.items()}
    assert results == {f"task-{n}": {"twice": 2 * n} for n in range(500)}
    assert session.left


async def test_batches_are_never_larger_than_the_batch_size() -> None:
    engine = FakeEngine()
    session = MemorySession([lease(n) for n in range(100)])
    await work_off(session, engine, deployment=deployment(batch_size=8))
    assert max(map(len, engine.batches)) == 8


async def test_an_execution_tells_batch_size_and_times() -> None:
    session = MemorySession([lease(n) for n in range(4)])
    await work_off(session, FakeEngine(slowly(0.02)))
    assert len(session.done) == 4
    for _, execution in session.done.values():
        assert execution.worker == session.worker
        assert execution.batch_size == 4
        assert execution.compute_ms >= 20
        assert execution.batch_wait_ms >= 0


async def test_numpy_outputs_become_json_numbers() -> None:
    session = MemorySession([lease(1)])
    row = np.array([0.5, -1.0], dtype=np.float32)
    await work_off(session, FakeEngine(lambda values: [{"embedding": row} for _ in values]))
    assert session.done["task-1"][0] == b'{"embedding":[0.5,-1.0]}'


@pytest.mark.parametrize("name", ["float32", "float64", "int8", "bool"])
async def test_rows_of_a_transposed_array_become_json(name: str) -> None:
    columns = np.array([[1, 0], [1, 1]]).astype(name).T
    assert not columns[0].flags.c_contiguous
    session = MemorySession([lease(0), lease(1)])
    await work_off(session, FakeEngine(lambda values: [{"row": row} for row in columns]))
    rows = [orjson.loads(session.done[f"task-{n}"][0])["row"] for n in range(2)]
    assert rows == [[1, 1], [0, 1]]


async def test_only_the_poisonous_task_of_a_batch_fails() -> None:
    def picky(values: list[Any]) -> list[Any]:
        if any(value["n"] == 13 for value in values):
            raise ValueError("13 is unlucky")
        return values

    session = MemorySession([lease(n) for n in range(32)])
    await work_off(session, FakeEngine(picky))
    assert set(session.failed) == {"task-13"}
    error = session.failed["task-13"]
    assert (error.type, error.retryable) == ("engine-error", True)
    assert error.message == "ValueError: 13 is unlucky"
    assert error.traceback is not None
    assert "picky" in error.traceback
    assert len(session.done) == 31


@pytest.mark.parametrize("kind", [tuple, np.array])
async def test_a_halved_batch_may_have_outputs_of_any_kind(kind: Any) -> None:
    def picky(values: list[Any]) -> Any:
        numbers = [value["n"] for value in values]
        if 2 in numbers:
            raise ValueError
        return kind(numbers) if len(numbers) < 4 else list(numbers)

    session = MemorySession([lease(n) for n in range(12)])
    await work_off(session, FakeEngine(picky))
    assert set(session.failed) == {"task-2"}
    results = {key: orjson.loads(body) for key, (body, _) in session.done.items()}
    assert results == {f"task-{n}": n for n in range(12) if n != 2}


async def test_an_engine_that_exits_fails_the_task_and_not_the_replica() -> None:
    def leaver(values: list[Any]) -> list[Any]:
        if any(value["n"] == 1 for value in values):
            raise SystemExit(3)
        return values

    session = MemorySession([lease(n) for n in range(3)])
    await work_off(session, FakeEngine(leaver))
    assert set(session.failed) == {"task-1"}
    assert len(session.done) == 2


async def test_a_wrong_number_of_outputs_fails_the_batch_loudly() -> None:
    session = MemorySession([lease(n) for n in range(3)])
    await work_off(session, FakeEngine(lambda values: values[:-1]))
    assert {error.type for error in session.failed.values()} == {"output-mismatch"}
    assert not next(iter(session.failed.values())).retryable
    assert len(session.failed) == 3


async def test_only_the_task_that_spoils_the_number_of_outputs_fails() -> None:
    def skips(values: list[Any]) -> list[Any]:
        return [value for value in values if value["n"] != 13]

    session = MemorySession([lease(n) for n in range(32)])
    await work_off(session, FakeEngine(skips))
    assert set(session.failed) == {"task-13"}
    error = session.failed["task-13"]
    assert (error.type, error.retryable) == ("output-mismatch", False)
    assert set(session.done) == {f"task-{n}" for n in range(32) if n != 13}


async def test_integers_of_any_size_come_back() -> None:
    session = MemorySession([lease(1)])
    await work_off(session, FakeEngine(lambda values: [{"n": 2**70, "é": 0.5} for _ in values]))
    result = json.loads(session.done["task-1"][0])
    assert result == {"n": 2**70, "é": 0.5}


async def test_an_output_that_is_not_json_fails_its_task_only() -> None:
    session = MemorySession([lease(n) for n in range(3)])
    engine = FakeEngine(lambda values: [object() if v["n"] == 1 else v for v in values])
    await work_off(session, engine)
    assert set(session.failed) == {"task-1"}
    assert not session.failed["task-1"].retryable
    assert len(session.done) == 2


class SaysNothingError(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no file caf\udce9"), "ValueError: no file caf\\udce9"),
        (InvalidInputError("no file caf\udce9"), "no file caf\\udce9"),
        (SaysNothingError(), "SaysNothingError: it cannot be shown"),
    ],
)
async def test_an_error_that_cannot_be_encoded_is_readable(error: Exception, message: str) -> None:
    def fails(values: list[Any]) -> list[Any]:
        raise error

    session = MemorySession([lease(1)])
    await work_off(session, FakeEngine(fails))
    assert session.failed["task-1"].message == message
    assert msgspec.json.encode(session.failed["task-1"])


@pytest.mark.parametrize("array", [np.array(["a", "b"]), np.array([2**70, "b"], dtype=object)])
async def test_arrays_of_other_things_than_numbers_become_json(array: Any) -> None:
    session = MemorySession([lease(1)])
    await work_off(session, FakeEngine(lambda _: [array]))
    assert json.loads(session.done["task-1"][0]) == array.tolist()


@pytest.mark.parametrize("output", ["\udce9", {"\udce9": 1}, [2**70, "\udce9"], [2**70, DEEP]])
async def test_an_output_that_cannot_be_encoded_fails_its_task_only(output: Any) -> None:
    session = MemorySession([lease(0), lease(1)])
    await work_off(session, FakeEngine(lambda values: [output, *values[1:]]))
    error = session.failed["task-0"]
    assert error.type == "engine-error"
    assert error.message.startswith("the output is not JSON: ")
    assert set(session.done) == {"task-1"}


async def test_an_input_that_the_model_refuses_fails_without_a_retry() -> None:
    bad = lease(1, {"error": InvalidInputError("data.text has 300 tokens")})
    session = MemorySession([lease(0), bad])
    await work_off(session, FakeEngine())
    error = session.failed["task-1"]
    assert (error.type, error.retryable) == ("invalid-input", False)
    assert set(session.done) == {"task-0"}


async def test_inputs_of_similar_cost_share_a_batch() -> None:
    costs = [10.0, 500.0] * 8
    session = MemorySession([lease(n, {"cost": cost}) for n, cost in enumerate(costs)])
    engine = FakeEngine(padded)
    appetite = Appetite(batch_size=4, lookahead=4)
    await work_off(session, engine, deployment=deployment(batch_size=4), appetite=appetite)
    assert all(len({value["cost"] for value in batch}) == 1 for batch in engine.batches)


def padded(values: list[Any]) -> list[Any]:
    time.sleep(1e-5 * len(values) * max(value["cost"] for value in values))
    return values


async def test_a_suspect_begins_alone_when_the_device_is_idle() -> None:
    session = MemorySession([*(lease(n) for n in range(4)), lease(9, crashes=1)])
    engine = FakeEngine(slowly(0.01))
    await work_off(session, engine)
    assert session.begun == [[f"task-{n}" for n in range(4)], ["task-9"]]
    assert [len(batch) for batch in engine.batches] == [4, 1]


async def test_a_batch_begins_before_it_computes_and_is_noted_with_the_one_under_way() -> None:
    seen: list[list[str]] = []
    session = MemorySession([lease(n) for n in range(8)])

    def look(values: list[Any]) -> list[Any]:
        noted = {task for note in session.begun for task in note}
        seen.append([f"task-{v['n']}" for v in values if f"task-{v['n']}" not in noted])
        time.sleep(0.02)
        return values

    await work_off(session, FakeEngine(look), deployment=deployment(batch_size=4))
    assert seen == [[], []]
    assert session.begun[1] == [f"task-{n}" for n in range(8)]


async def test_the_next_batch_is_claimed_while_one_computes_and_no_more_than_one() -> None:
    session = MemorySession([lease(n) for n in range(40)])
    ahead: list[int] = []

    def look(values: list[Any]) -> list[Any]:
        time.sleep(0.03)
        ahead.append(40 - len(session.waiting))
        return values

    engine = FakeEngine(look)
    await work_off(session, engine, deployment=deployment(batch_size=4))
    done = [4 * (n + 1) for n in range(len(ahead))]
    # Claimed at the end of a batch: itself, the ones before, one prefetched, one being claimed.
    assert all(claimed - own <= 8 for claimed, own in zip(ahead, done, strict=True))


async def test_results_are_sent_while_the_next_batch_computes() -> None:
    session = MemorySession([lease(n) for n in range(8)])
    done_when_second_ran: list[int] = []

    def look(values: list[Any]) -> list[Any]:
        until = time.monotonic() + 5.0
        while len(session.done) < 4 * len(done_when_second_ran) and time.monotonic() < until:
            time.sleep(0.01)
        done_when_second_ran.append(len(session.done))
        return values

    await work_off(session, FakeEngine(look), deployment=deployment(batch_size=4))
    assert done_when_second_ran == [0, 4]


async def test_a_free_device_waits_for_a_batch_to_fill() -> None:
    session = MemorySession([lease(0)])
    engine = FakeEngine()
    session.expected = 2
    asyncio.get_running_loop().call_later(0.05, lambda: session.waiting.append(lease(1)))
    appetite = Appetite(batch_size=2, batch_wait=5.0)
    started = time.monotonic()
    await work_off(session, engine, deployment=deployment(batch_size=2), appetite=appetite)
    assert [len(batch) for batch in engine.batches] == [2]
    assert time.monotonic() - started < 4


async def test_a_full_batch_never_waits() -> None:
    session = MemorySession([lease(n) for n in range(4)])
    appetite = Appetite(batch_size=4, batch_wait=10.0)
    started = time.monotonic()
    await work_off(session, FakeEngine(), deployment=deployment(batch_size=4), appetite=appetite)
    assert time.monotonic() - started < 5


async def test_a_drain_finishes_what_computes_and_gives_back_also_the_batch_behind_it() -> None:
    session = MemorySession([lease(n) for n in range(16)])
    began = threading.Event()
    go_on = threading.Event()

    def hold(values: list[Any]) -> list[Any]:
        began.set()
        go_on.wait(10)
        return values

    appetite = Appetite(batch_size=4, lookahead=4)
    worker = Worker(
        session, FakeEngine(hold), deployment(batch_size=4), settings(), appetite=appetite
    )
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(began.wait, 10)
    async with asyncio.timeout(10):
        while len(session.begun) < 2:
            await asyncio.sleep(0.01)
    worker.drain()
    # Before the batch ends: others take what is given back at once.
    async with asyncio.timeout(10):
        while len(session.released) < 12:
            await asyncio.sleep(0.01)
    go_on.set()
    await asyncio.wait_for(running, 10)
    assert set(session.done) == {f"task-{n}" for n in range(4)}
    assert set(session.released) == {f"task-{n}" for n in range(4, 16)}
    assert session.left


async def test_results_wait_for_a_queue_that_is_away() -> None:
    session = MemorySession([lease(n) for n in range(4)])

    def breaks(values: list[Any]) -> list[Any]:
        session.broken = 3
        return values

    await work_off(session, FakeEngine(breaks))
    assert len(session.done) == 4


async def test_a_replica_outlives_a_queue_that_is_away_while_idle() -> None:
    session = MemorySession()
    session.broken = 1
    session.submit([lease(1)])
    await work_off(session, FakeEngine())
    assert set(session.done) == {"task-1"}


async def test_lost_tasks_are_neither_computed_nor_reported() -> None:
    session = MemorySession([lease(n) for n in range(12)])
    session.lost = {"task-0", "task-11"}
    session.expected = 10
    engine = FakeEngine(slowly(1.3))
    appetite = Appetite(batch_size=4, lookahead=3)
    await work_off(
        session,
        engine,
        deployment=deployment(batch_size=4),
        settings=settings(lease=1.5),
        appetite=appetite,
    )
    assert set(session.done) == {f"task-{n}" for n in range(1, 11)}
    assert all(value["n"] != 11 for batch in engine.batches for value in batch)


async def test_leases_are_extended_while_a_batch_computes() -> None:
    session = MemorySession([lease(1)])
    await work_off(session, FakeEngine(slowly(2.5)), settings=settings(lease=1.5))
    assert session.extended[0] == ["task-1"]


async def test_leases_come_before_the_heartbeat_that_takes_back_what_ran_out() -> None:
    session = MemorySession([lease(1)])
    await work_off(session, FakeEngine(slowly(1.2)), settings=settings(lease=1.5))
    first = session.calls.index("extend")
    assert session.calls[first + 1] == "heartbeat"


async def test_leases_are_extended_as_soon_as_the_queue_answers_again() -> None:
    session = MemorySession([lease(1)])

    def breaks(values: list[Any]) -> list[Any]:
        session.broken = 1_000_000
        time.sleep(1.3)
        session.calls.clear()
        session.broken = 0
        time.sleep(1.3)
        return values

    # The period of extending is longer than the batch: only the error asks for it.
    await work_off(session, FakeEngine(breaks), settings=settings(lease=60.0))
    beats = [call for call in session.calls if call in ("extend", "heartbeat")]
    assert beats[:2] == ["extend", "heartbeat"]


async def test_a_replica_counts_batches_claims_failures_and_stale_results() -> None:
    def picky(values: list[Any]) -> list[Any]:
        if any(value["n"] == 3 for value in values):
            raise ValueError
        return values

    session = MemorySession([lease(n) for n in range(8)])
    session.stale = 2
    counted = Deployment(model="counted", version=4, batch_size=8)
    await work_off(session, FakeEngine(picky), deployment=counted)
    text = measures.of_replica().decode()
    for name, value in (
        ("batch_tasks_sum", 8.0),
        ("batch_seconds_count", 1.0),
        ("batch_items_failed_total", 1.0),
        ("claim_seconds_count", 1.0),
        ("completions_stale_total", 2.0),
    ):
        assert f'inferstack_{name}{{model="counted",version="4"}} {value}' in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize(("seconds", "told"), [(0.1, 0), (2.5, 1)])
async def test_a_call_that_keeps_the_interpreter_for_longer_than_a_lease_is_told(
    caplog: pytest.LogCaptureFixture, seconds: float, told: int
) -> None:
    loop = asyncio.get_running_loop()

    def keep(values: list[Any]) -> list[Any]:
        over = threading.Event()
        # To the event loop this is the same.
        loop.call_soon_threadsafe(time.sleep, seconds)
        loop.call_soon_threadsafe(over.set)
        assert over.wait(10)
        time.sleep(1.3)  # a turn of what watches over the event loop
        return values

    session = MemorySession([lease(1)])
    await work_off(session, FakeEngine(keep), settings=settings(lease=1))
    assert sum("stood still for" in line for line in caplog.messages) == told


async def test_a_stuck_batch_ends_the_process_and_each_task_of_it_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[int] = []
    session = MemorySession([lease(1)])
    await work_off(
        session,
        FakeEngine(slowly(0.6)),
        deployment=deployment(compute_timeout=0.2),
        end_process=ended.append,
    )
    assert set(ended) == {EXIT_STUCK}
    told = {
        getattr(record, "task_id", "") for record in caplog.records if "stuck" in record.message
    }
    assert told == {"", "task-1"}


MATCHING = """
import asyncio, re, sys, time
from inferstack.worker import loop
from tests.worker import fakes

def match(values):
    return [bool(re.match(value["pattern"], "a" * 100 + "b")) for value in values]

loop.GRACE = 0.0
session = fakes.MemorySession([fakes.lease(1, {"pattern": sys.argv[1]})])
engine, deployment = fakes.FakeEngine(match), fakes.deployment(compute_timeout=2.0)
asyncio.run(fakes.work_off(session, engine, deployment=deployment))
time.sleep(2.5)
"""


@pytest.mark.parametrize(("pattern", "status"), [("(a+)+$", 1), ("a+", 0)])
def test_the_process_ends_if_a_call_holds_the_interpreter_and_not_after_its_work(
    pattern: str, status: int
) -> None:
    command = [sys.executable, "-c", MATCHING, pattern]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    assert ("Timeout (0:00:02)!" in done.stderr) == (status == 1)
    assert ("in match" in done.stderr) == (status == 1)


class ModelPrepares(FakeEngine):
    """Runs code of the model for each input before it is planned."""

    prepares_quickly = False
    prepares_by_model = True

    def __init__(self, look: Callable[[Any], object], function: Any = None) -> None:
        super().__init__(function)
        self.look = look

    def prepare(self, inputs: list[Any]) -> list[Prepared | InferstackError]:
        for data in inputs:
            self.look(data)
        return super().prepare(inputs)


async def test_a_preparation_that_is_stuck_ends_the_process() -> None:
    ended: list[int] = []
    session = MemorySession([lease(1)])
    await work_off(
        session,
        ModelPrepares(lambda _: time.sleep(0.6)),
        deployment=deployment(compute_timeout=0.2),
        end_process=ended.append,
    )
    assert set(ended) == {EXIT_STUCK}


async def test_a_task_counts_as_begun_while_the_model_prepares_it_and_a_suspect_comes_alone() -> (
    None
):
    noted: dict[int, set[str]] = {}
    session = MemorySession([lease(0), lease(1, crashes=1), lease(2), lease(3, crashes=1)])
    engine = ModelPrepares(lambda data: noted.setdefault(data["n"], set(session.begun[-1])))
    await work_off(session, engine)
    assert noted == {
        0: {"task-0", "task-2"},
        2: {"task-0", "task-2"},
        1: {"task-1"},
        3: {"task-3"},
    }
    assert len(session.done) == 4


async def test_nothing_is_prepared_beside_a_suspect() -> None:
    session = MemorySession([lease(9, crashes=1)])
    session.expected = 2
    beside: list[list[str]] = []
    come = asyncio.get_running_loop().call_soon_threadsafe

    def hold(values: list[Any]) -> list[Any]:
        if values[0]["n"] == 9:
            come(session.waiting.append, lease(0))
            # Long enough for it to be claimed, and noted if that were done at once.
            until = time.monotonic() + 5.0
            while session.waiting and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.1)
            beside.append(session.begun[-1])
        return values

    await work_off(session, ModelPrepares(lambda _: None, hold))
    assert beside == [["task-9"]]
    assert len(session.done) == 2


async def test_preparations_are_timed_one_by_one_and_the_stuck_one_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[int] = []
    session = MemorySession([lease(n) for n in range(7)])
    await work_off(
        session,
        ModelPrepares(lambda _: time.sleep(0.2)),
        deployment=deployment(compute_timeout=1.0, batch_size=8),
        end_process=ended.append,
    )
    assert ended == []
    assert len(session.done) == 7
    session = MemorySession([lease(n) for n in range(3)])
    await work_off(
        session,
        ModelPrepares(lambda data: time.sleep(0.6 if data["n"] == 1 else 0)),
        deployment=deployment(compute_timeout=0.2, batch_size=8),
        end_process=ended.append,
    )
    assert set(ended) == {EXIT_STUCK}
    named = {getattr(record, "task_id", None) for record in caplog.records}
    assert named == {None, "task-1"}


async def test_a_batch_that_was_halved_says_nothing_of_how_long_batches_take() -> None:
    def picky(values: list[Any]) -> list[Any]:
        time.sleep(0.01)
        if any(value["n"] == 0 for value in values):
            raise ValueError
        return values

    fit = CostFit()
    session = MemorySession([lease(n) for n in range(4)])
    await work_off(session, FakeEngine(picky), deployment=deployment(batch_size=4), fit=fit)
    assert len(session.done) == 3
    assert fit.model() is None


async def test_a_drain_prepares_no_suspect_that_waits_for_the_device() -> None:
    session = MemorySession([lease(0), lease(1, crashes=1)])
    seen: list[int] = []
    began, go_on = threading.Event(), threading.Event()

    def hold(values: list[Any]) -> list[Any]:
        began.set()
        go_on.wait(10)
        return values

    engine = ModelPrepares(lambda data: seen.append(data["n"]), hold)
    one = deployment(batch_size=1)
    worker = Worker(session, engine, one, settings(), appetite=Appetite(1, lookahead=1))
    running = asyncio.create_task(worker.run())
    await asyncio.to_thread(began.wait, 10)
    async with asyncio.timeout(10):
        while session.waiting:
            await asyncio.sleep(0.01)
    worker.drain()
    go_on.set()
    await asyncio.wait_for(running, 10)
    assert (seen, session.released) == ([0], ["task-1"])


async def test_what_nobody_wants_any_more_is_not_prepared() -> None:
    session = MemorySession([lease(n) for n in range(4)])
    session.expected = 3
    seen: list[int] = []
    loop, dropped = asyncio.get_running_loop(), threading.Event()

    def drop() -> None:
        session.drop("task-2")
        dropped.set()

    def look(data: Any) -> None:
        seen.append(data["n"])
        if data["n"] == 0:
            loop.call_soon_threadsafe(drop)
            assert dropped.wait(10)

    await work_off(session, ModelPrepares(look))
    assert seen == [0, 1, 3]
    assert (set(session.done), session.released) == ({"task-0", "task-1", "task-3"}, [])


async def test_a_drain_waits_for_one_preparation_and_gives_everything_back() -> None:
    session = MemorySession([lease(n) for n in range(4)])
    seen: list[int] = []

    def look(data: Any) -> None:
        seen.append(data["n"])
        worker.drain()

    worker = Worker(session, ModelPrepares(look), deployment(batch_size=4), settings())
    await asyncio.wait_for(worker.run(), 10)
    assert seen == [0]
    assert sorted(session.released) == [f"task-{n}" for n in range(4)]
    assert session.done == {}


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
@pytest.mark.parametrize("quickly", [True, False])
async def test_a_preparation_that_raises_fails_its_own_task_only(
    error: BaseException, quickly: bool
) -> None:
    def look(data: Any) -> None:
        if data["n"] == 3:
            raise error

    session = MemorySession([lease(n) for n in range(8)])
    engine = ModelPrepares(look)
    engine.prepares_quickly = quickly
    await work_off(session, engine)
    assert set(session.failed) == {"task-3"}
    assert session.failed["task-3"].message.startswith(type(error).__name__)
    assert len(session.done) == 7


async def test_a_lost_device_ends_the_process() -> None:
    def lose(values: list[Any]) -> list[Any]:
        raise RuntimeError("CUDA error: device-side assert triggered")

    await check_end(lose)


async def test_an_engine_can_say_that_its_device_is_lost() -> None:
    def lose(values: list[Any]) -> list[Any]:
        raise DeviceLostError

    await check_end(lose)


async def check_end(function: Any) -> None:
    ended = asyncio.Event()
    session = MemorySession([lease(n) for n in range(4)])
    worker = Worker(
        session,
        FakeEngine(function),
        deployment(),
        settings(),
        end_process=lambda code: ended.set() if code == EXIT_STUCK else None,
    )
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(ended.wait(), 10)
    # In truth the process is gone now.
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    # What the batch came to says nothing: its leases run out, which counts as a crash.
    assert not session.failed
    assert not session.done


@pytest.mark.parametrize("error", [MemoryError("out"), ValueError("CUDA out of memory")])
async def test_running_out_of_memory_halves_the_batch(error: BaseException) -> None:
    def small(values: list[Any]) -> list[Any]:
        if len(values) > 4:
            raise error
        return values

    session = MemorySession([lease(n) for n in range(16)])
    await work_off(session, FakeEngine(small))
    assert len(session.done) == 16


async def test_high_priority_tasks_of_a_window_compute_first() -> None:
    rows = []
    for number in range(12):
        row = lease(number)
        if number >= 8:
            spec = msgspec.structs.replace(row.spec, priority=Priority.HIGH)
            row = msgspec.structs.replace(row, spec=spec)
        rows.append(row)
    session = MemorySession(rows)
    engine = FakeEngine()
    appetite = Appetite(batch_size=4, lookahead=3)
    await work_off(session, engine, deployment=deployment(batch_size=4), appetite=appetite)
    assert [value["n"] for value in engine.batches[0]] == [8, 9, 10, 11]


async def test_the_status_tells_device_counts_and_capacity() -> None:
    session = MemorySession([lease(n) for n in range(64)])
    worker = await work_off(session, FakeEngine(slowly(0.05)))
    status = worker.status()
    assert (status.device, status.completed, status.batches) == ("cpu", 64, 2)
    assert status.tasks == 64
    assert 0.1 <= status.computed < 60
    assert 100 < status.capacity < 700
    assert status.state == "draining"
    assert session.statuses[0].state == "ready"
    assert worker.silent_for() < 60


async def test_a_task_that_is_cancelled_before_its_batch_starts_is_not_computed() -> None:
    session = MemorySession([lease(n) for n in range(8)])
    session.expected = 7

    dropped = threading.Event()

    def drop() -> None:
        session.drop("task-7")
        dropped.set()

    def cancel_the_last(values: list[Any]) -> list[Any]:
        if values[0]["n"] == 0:
            while len(session.begun) < 2:  # the batch of the last task is handed over
                time.sleep(0.01)
            loop.call_soon_threadsafe(drop)
            assert dropped.wait(10)
        return values

    loop = asyncio.get_running_loop()
    engine = FakeEngine(cancel_the_last)
    appetite = Appetite(batch_size=4, lookahead=2)
    await work_off(session, engine, deployment=deployment(batch_size=4), appetite=appetite)
    assert set(session.done) == {f"task-{n}" for n in range(7)}
    assert [len(batch) for batch in engine.batches] == [4, 3]


async def test_a_store_that_hangs_holds_up_no_small_result_and_no_drain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "STORE_GRACE", 0.1)
    session = HangingStore([lease(n) for n in range(40)])
    large = "x" * session.inline_limit
    session.expected = 39
    engine = FakeEngine(lambda values: [large if value["n"] == 0 else value for value in values])
    worker = await work_off(session, engine, deployment=deployment(batch_size=4))
    assert set(session.done) == {f"task-{n}" for n in range(1, 40)}
    assert session.released == ["task-0"]
    assert worker.status().completed == 39


async def test_a_store_that_hangs_bounds_what_is_claimed_until_it_answers() -> None:
    session = HangingStore([lease(n) for n in range(500)])
    large = "x" * session.inline_limit
    engine = FakeEngine(lambda values: [large for _ in values])
    working = asyncio.create_task(
        work_off(session, engine, deployment=deployment(batch_size=4), appetite=Appetite(4))
    )
    async with asyncio.timeout(20):
        # Also of tasks that somebody cancelled the large results are in memory.
        while len(session.storing) < 20:
            for task_id in session.storing:
                session.drop(task_id)
            await asyncio.sleep(0.01)
        beats = len(session.statuses)
        while len(session.statuses) < beats + 2:
            await asyncio.sleep(0.01)
    assert len(session.storing) == 20
    session.answers.set()
    await working
    assert len(session.done) == 500
