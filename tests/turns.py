"""Several processes run the tests of one run; a test that measures waits until it is alone.

`@pytest.mark.alone` says so. The processes share two lock files: whoever runs a test is in the
`room`, one that has to be alone has it for itself. Everybody passes the `gate` on the way in, and
who waits there for an empty room lets nobody overtake.

A process runs whole files, and those that share a stack in one go. Those that take longest begin
first, so that none is left for the end; those with a test that is alone come last, where nobody has
to wait for them.
"""

import fcntl
import gc
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

LONGEST = (
    "faults/test_kill",
    "faults/test_services",
    "worker/test_replicas",
    "faults/test_machines",
    "local/test_up",
    "faults/test_rolling",
    "faults/test_failpoints",
    "e2e/test_ui",
    "faults/test_network",
    "faults/test_disk",
    "faults/test_inputs",
    "docs/test_commands",
    "integration/test_script",
    "integration/test_k6",
    "integration/test_scenarios",
    "e2e/test_first_steps",
    "deployment/test_start",
    "faults/test_planted",
    "queue/test_protocol",
    "monitoring/test_live",
    "worker/test_loop",
)
"""Files, longest first; the others follow in the order of their names."""
TOGETHER = "tests/integration/"
"""A folder with a fixture for all of its files."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "alone: it measures, so nothing else of this run may run beside it"
    )


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """A process runs whole files, and all of `TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return TOGETHER if scope.startswith(TOGETHER) else scope


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_finish() -> None:
    """What is imported by now stays; simulators that collect garbage need not look through it."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        last = {item.path for item in items if item.get_closest_marker("alone")}
        items.sort(key=lambda item: (item.path in last, _rank(item.path)))


def _rank(path: Path) -> int:
    file = "/".join(path.with_suffix("").parts[-2:])
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


# First, so that a test's timeout does not begin before its turn.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """One turn is a whole test, with what its fixtures do before and after it."""
    if not hasattr(item.config, "workerinput"):  # There is one process only.
        return (yield)
    shared = Path(item.config.getoption("basetemp")).parent
    with turn(shared, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Returns once nobody is here who is alone, or nobody at all.

    Args:
        folder: what the processes have in common.
        alone: whether nobody may come in until the block ends.
    """
    with (folder / "room").open("a") as room:
        with (folder / "gate").open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
