"""Options of the fault suite, and the numbers that it prints last."""

import random
from collections.abc import Generator
from typing import Any

import pytest

from tests.faults import tally

SEEDS = 4
"""Seeds of the simulator in the short profile."""
PAIRS, MORE_PAIRS = 3, 15
"""Random pairs of processes that are killed, in the short and in the long profile."""
MEETINGS, MORE_MEETINGS = 2, 20
"""Random victims that are killed while another process is at a failpoint, likewise."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--seed", type=int, default=1, help="first seed of the fault suite; 0 takes a random one"
    )
    group.addoption(
        "--seeds", type=int, default=SEEDS, help="seeds that the queue simulator runs, in a row"
    )
    group.addoption(
        "--long", action="store_true", help="the long profile of the fault suite: more and longer"
    )
    group.addoption(
        "--old", default="HEAD^", help="the commit that runs beside this one in a rolling restart"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed == 0:
        chosen = random.SystemRandom().randrange(1_000_000)
        config.option.seed = getattr(config, "workerinput", {}).get("seed", chosen)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All processes of this run take the same seed."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`each_seed` runs a test once for each seed, `pair` for each pair of victims, `meeting` for
    each victim that dies while another process is at a failpoint."""
    long = metafunc.config.option.long
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", range(MORE_PAIRS if long else PAIRS))
    if "meeting" in metafunc.fixturenames:
        metafunc.parametrize("meeting", range(MORE_MEETINGS if long else MEETINGS))
    first, count = metafunc.config.option.seed, metafunc.config.option.seeds
    if "each_seed" in metafunc.fixturenames:
        metafunc.parametrize("each_seed", range(first, first + count), ids=lambda s: f"seed-{s}")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: it is in the last line of the output, and `--seed` sets it."""
    return int(request.config.option.seed)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether there is time: floods of a minute, thousands of connections, more pairs."""
    return bool(request.config.option.long)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what another process of this run has counted."""
    if found := getattr(node, "workeroutput", {}).get("faults"):
        tally.take(found)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Prints after everything else, also after what pytest says last."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["faults"] = tally.give()
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        for line in tally.lines(session.config.option.seed):
            reporter.write_line(line)
