"""Several processes run the tests of one run; a test that measures waits until it is alone.

`@pytest.mark.alone` says so. The processes share two lock files: whoever runs a test is in the
`room`, one that has to be alone has it for itself. Everybody passes the `gate` on the way in, and
who waits there for an empty room lets nobody overtake.
"""

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "alone: it measures, so nothing else of this run may run beside it"
    )


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
