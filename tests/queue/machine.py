"""What the state machines of the queue share: how they run, and proof of which scripts they run."""

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from inferstack.queue import scripts


class Machine(RuleBasedStateMachine):
    """A model beside the real thing."""

    url: ClassVar[str]
    SCRIPTS: ClassVar[frozenset[str]]
    """All that its rules run: `run` holds it against what they did run."""


def run(
    machine: type[Machine],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    examples: int,
    steps: int,
) -> None:
    """Runs a machine in many orders.

    Args:
        machine: the machine.
        url: of a Redis that it may empty.
        monkeypatch: notes which scripts it runs.
        examples: how many orders.
        steps: rules in each.
    """
    ran = set[str]()
    load = scripts.load

    def noted(name: str) -> scripts.Script:
        ran.add(name)
        return load(name)

    monkeypatch.setattr(scripts, "load", noted)
    machine.url = url
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert ran == machine.SCRIPTS, f"it ran {sorted(ran)}"
