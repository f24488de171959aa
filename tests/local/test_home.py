import shutil
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from inferstack.errors import StackError
from inferstack.local.home import Home, free_port, port_free


def test_secrets_and_ports_are_chosen_once(home: Home) -> None:
    first = home.choose(redis=True, postgres=True)
    assert Home(home.root).choose(redis=True, postgres=True) == first
    assert len(first.secret_key) >= 32


def test_the_file_with_secrets_is_private(home: Home) -> None:
    home.choose(redis=True, postgres=True)
    assert stat.S_IMODE((home.root / "identity.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["objects", "logs", "redis"])
def test_nobody_else_may_look_into_its_folders_even_of_an_older_home(home: Home, name: str) -> None:
    (home.root / name).chmod(0o755)
    home.prepare()
    assert stat.S_IMODE((home.root / name).stat().st_mode) == 0o700


def test_a_port_that_was_taken_is_replaced(home: Home) -> None:
    first = home.choose(redis=True, postgres=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first.redis_port or 0))
        other.listen()
        second = home.choose(redis=True, postgres=False)
    assert second.redis_port != first.redis_port
    assert second.redis_password == first.redis_password


def test_a_broken_identity_is_not_replaced(home: Home) -> None:
    (home.root / "identity.json").write_text("{")
    with pytest.raises(StackError, match=r"identity\.json"):
        home.choose(redis=True, postgres=True)


def test_one_process_holds_the_lock(home: Home) -> None:
    other = Home(home.root)
    assert home.lock()
    assert not other.lock()
    home.unlock()
    assert other.lock()
    other.unlock()


def test_a_full_disk_is_refused_with_what_to_do(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 2**20))
    with pytest.raises(StackError, match=r"only 100 MB are free.*500 MB are needed"):
        home.prepare()


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="set INFERSTACK_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def test_a_free_port_is_free() -> None:
    port = free_port(None)
    assert port_free("127.0.0.1", port)
    assert free_port(port) == port
