"""What an archive of the sources holds."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_ITSELF = {"LICENSE", "README.md", "pyproject.toml"}
"""The builder adds them."""
READ = re.compile(r"""(?:ROOT|parents\[2\]) / f?"([^"/{]+)""")


def included() -> set[str]:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    return {str(path).removeprefix("/") for path in build["targets"]["sdist"]["include"]}


def test_an_archive_of_the_sources_has_all_that_their_tests_read() -> None:
    sources = ROOT.glob("tests/**/*.py")
    read = {name for source in sources for name in READ.findall(source.read_text())}
    assert {"docs", "scripts"} <= read
    read |= {path.name for path in ROOT.glob("docker-compose*.yml")}
    assert read - included() - OF_ITSELF == set()


def test_every_entry_of_the_archive_is_there() -> None:
    assert [name for name in included() if not (ROOT / name).exists()] == []
