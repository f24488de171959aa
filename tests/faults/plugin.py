"""Options of the fault suite, and the numbers that it prints last."""

import random
from collections.abc import Generator

import pytest

from tests.faults.tally import PROFILES

SEEDS = 4
"""Seeds of the simulator in the short profile."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--seed", type=int, default=1, help="first seed of the fault suite; 0 takes a random one"
    )
    group.addoption(
        "--seeds", type=int, default=SEEDS, help="seeds that the queue simulator runs, in a row"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed == 0:
        config.option.seed = random.SystemRandom().randrange(1_000_000)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`seed` is the seed of this run; `each_seed` runs a test once for each."""
    first, count = metafunc.config.option.seed, metafunc.config.option.seeds
    if "each_seed" in metafunc.fixturenames:
        metafunc.parametrize("each_seed", range(first, first + count), ids=lambda s: f"seed-{s}")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: it is in the last line of the output, and `--seed` sets it."""
    return int(request.config.option.seed)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Prints after everything else, also after what pytest says last."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    for name, tally in sorted(PROFILES.items()):
        reporter.write_line(
            f"faults: {name}: {tally.faults} injected, {tally.accepted} tasks accepted, "
            f"{tally.lost} lost, {tally.doubled} doubled, "
            f"seed {session.config.option.seed}"
        )
        for violation in tally.violations[:10]:
            reporter.write_line(f"  {violation}")
