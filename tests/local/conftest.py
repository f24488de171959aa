from collections.abc import Iterator
from pathlib import Path

import pytest

from inferstack.local.home import Home
from tests.local.stack import readable_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with readable_folder() as path:
        yield path


@pytest.fixture
def home(folder: Path) -> Home:
    home = Home(folder / "home")
    home.prepare()
    return home
