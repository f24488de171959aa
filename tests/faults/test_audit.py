"""The audit of real processes is worth something only if it finds what is wrong: planted here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from inferstack.lifecycle.payloads import input_key, result_key
from inferstack.queue.codec import Record
from inferstack.task import Execution, Task, TaskSpec, TaskState, new_task_id
from tests.faults.audit import Live, Row, judge
from tests.faults.hazard import answer
from tests.faults.ledger import Ledger

SMALL, LARGE, REFUSED = 0, 1, 2


class Case(NamedTuple):
    """A ledger of three submits, two of which were accepted and kept their promise."""

    ledger: Ledger
    rows: list[Row]
    live: dict[str, Live]

    def row(self, number: int, **changes: Any) -> None:
        """Changes a task in history."""
        self.rows[number] = self.rows[number]._replace(**changes)

    def record(self, number: int, **changes: Any) -> None:
        """Changes the record of a task in Redis."""
        task_id = self.rows[number].task_id
        live = self.live[task_id]
        self.live[task_id] = live._replace(record=live.record._replace(**changes))

    def task(self, number: int, **changes: Any) -> None:
        """Changes the rest of a task in Redis."""
        task_id = self.rows[number].task_id
        live = self.live[task_id]
        self.live[task_id] = live._replace(task=msgspec.structs.replace(live.task, **changes))

    def write(self, ref: str | None, text: str) -> None:
        """Writes an object."""
        assert self.ledger.objects is not None
        assert ref is not None
        (self.ledger.objects / ref).write_text(text)

    def found(self) -> list[str]:
        """The invariants that the audit finds broken."""
        judge(self.ledger, self.rows, self.live)
        return [violation.partition(":")[0] for violation in self.ledger.tally.violations]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    ledger = Ledger("hazard", tmp_path)
    made = Case(ledger, [], {})
    for number in (SMALL, LARGE):
        data, task_id = ledger.intend(more=number), new_task_id("hazard:1")
        ledger.accept(task_id, data["payload"])
        refs: list[str | None] = [None, None]
        if number == LARGE:
            refs = [input_key(task_id), result_key(task_id, 2, "b", 7)]
            (tmp_path / str(refs[0])).parent.mkdir(parents=True)
            made.write(refs[0], msgspec.json.encode(data).decode())
            made.write(refs[1], msgspec.json.encode(answer(data)).decode())
        made.rows.append(_row(task_id, data if number == SMALL else None, refs))
        made.live[task_id] = _live(made.rows[-1])
    ledger.denied.add(ledger.intend()["payload"])
    return made


def _row(task_id: str, data: dict[str, object] | None, refs: list[str | None]) -> Row:
    return Row(
        task_id=task_id,
        state="completed",
        version=5,
        attempts=2,
        crashes=0,
        error=None,
        input=data,
        input_ref=refs[0],
        result=data and answer(data),
        result_ref=refs[1],
        worker="b",
        batch_size=1,
        compute_ms=40.0,
        age=1.0,
    )


def _live(row: Row) -> Live:
    state, started = TaskState.COMPLETED, 1_000
    record = Record(5, 2, 0, 0, 0, 0, 900, started, started + 50, state, "normal", "t", "b", "")
    task = Task(
        spec=TaskSpec(task_id=row.task_id, model="hazard", model_version=1, tenant="t"),
        state=state,
        attempts=row.attempts,
        version=row.version,
        execution=Execution("b", 1.0, 40.0, 1),
        result=None if row.result is None else msgspec.Raw(msgspec.json.encode(row.result)),
        result_ref=row.result_ref,
    )
    return Live(record, task)


def _another(case: Case, payload: int) -> Row:
    """One more task in history, made by a submit of this test."""
    data = list(case.ledger.submitted.values())[payload].data
    return _row(new_task_id("hazard:1"), data, [None, None])


def _told(case: Case) -> None:
    """A client has seen the small task complete in another attempt."""
    task_id = case.rows[SMALL].task_id
    body = {"task_id": task_id, "status": "completed", "attempts": 1}
    body["result"] = case.rows[SMALL].result
    case.ledger.hear(case.ledger.accepted[task_id], 200, msgspec.json.encode(body))


def test_what_was_promised_and_is_there_is_right(case: Case) -> None:
    assert case.found() == []


@pytest.mark.parametrize(
    ("invariant", "plant"),
    [
        ("I6", lambda case: case.rows.pop(SMALL)),
        ("I1", lambda case: case.row(SMALL, state="running")),
        ("I1", lambda case: case.live.pop(case.rows[SMALL].task_id)),
        ("I2", lambda case: case.row(SMALL, result={"payload": "another's"})),
        ("I2", lambda case: case.row(SMALL, input={**case.rows[SMALL].input, "more": 7})),
        ("I2", lambda case: case.write(case.rows[LARGE].result_ref, '{"payload": "another\'s"}')),
        ("I2", lambda case: case.write(case.rows[LARGE].input_ref, "{}")),
        ("I2", lambda case: case.write(case.rows[LARGE].result_ref, "spoiled")),
        ("I2", lambda case: (case.ledger.objects / case.rows[LARGE].result_ref).unlink()),
        ("I2", lambda case: case.task(SMALL, attempts=1)),
        ("I2", lambda case: case.task(SMALL, result=msgspec.Raw(b'{"payload": "another\'s"}'))),
        ("I2", _told),
        ("I3", lambda case: case.rows.append(_another(case, SMALL))),
        ("I3", lambda case: case.rows.append(_another(case, REFUSED))),
        ("I3", lambda case: case.row(SMALL, task_id=new_task_id("x:1"), input={"payload": "?"})),
        ("I4", lambda case: case.record(SMALL, worker="c")),
        ("I4", lambda case: case.record(LARGE, attempt=3)),
        ("I4", lambda case: case.record(SMALL, started=1_030)),
    ],
)
def test_what_is_wrong_is_found(
    case: Case, invariant: str, plant: Callable[[Case], object]
) -> None:
    plant(case)
    assert invariant in case.found()
    assert case.ledger.lost | case.ledger.doubled


def test_one_task_for_two_submits_is_found(case: Case) -> None:
    task_id = case.rows[SMALL].task_id
    case.ledger.accept(task_id, case.ledger.intend()["payload"])
    assert case.found() == ["I3"]
