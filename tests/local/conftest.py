import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferstack.local.home import Home


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach when root runs the tests; tmp_path is not."""
    path = Path(tempfile.mkdtemp(prefix="inferstack-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def home(folder: Path) -> Home:
    home = Home(folder / "home")
    home.prepare()
    return home
