"""Ids, states and transitions."""

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferstack.task import (
    TERMINAL,
    TRANSITIONS,
    TaskState,
    deployment_hint,
    new_task_id,
    task_id_hint,
)


@given(st.text(min_size=1, max_size=40))
def test_a_task_id_is_a_uuid7_that_names_its_deployment(deployment: str) -> None:
    before = time.time_ns() // 1_000_000
    task_id = new_task_id(deployment)
    parsed = uuid.UUID(task_id)
    assert str(parsed) == task_id
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000
    assert task_id_hint(task_id) == deployment_hint(deployment)


def test_ids_differ_and_later_ones_sort_later() -> None:
    first = [new_task_id("a:1") for _ in range(1000)]
    time.sleep(0.002)
    assert len(set(first)) == 1000
    assert max(first) < new_task_id("a:1")


UUID4 = "a674796f-c3b7-4d2b-b03e-de802f60e891"
HYPHEN_MOVED = "01975a3c7-f2e-7c41-9d0b-3f6e5a1b2c3d"


@pytest.mark.parametrize(
    "text", ["", "7", "x" * 36, UUID4, HYPHEN_MOVED, "A" * 14 + "7" + "a" * 21]
)
def test_what_is_no_task_id_has_no_hint(text: str) -> None:
    assert task_id_hint(text) is None


def test_terminal_states_never_change_and_the_others_can_end() -> None:
    for state in TaskState:
        assert state.terminal == (state in TERMINAL)
        assert bool(TRANSITIONS[state]) != state.terminal
