import errno
from pathlib import Path

import pytest

from inferstack.local import logs


def test_a_long_log_moves_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 10)
        logs.bound(log, limit=20)
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "api.log.1").read_bytes() == b"old\n" * 10


def test_a_long_log_gives_its_room_back_when_it_cannot_move_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    log = tmp_path / "api.log"
    log.write_bytes(b"old\n" * 10)
    logs.bound(log, limit=20)
    assert log.read_bytes() == b""


def test_a_short_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_bytes(b"line\n")
    logs.bound(log, limit=20)
    assert not (tmp_path / "api.log.1").exists()


def test_the_last_line_that_says_something_is_found(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    assert logs.last_line(log) is None
    log.write_text("first\nboom\n\n  \n")
    assert logs.last_line(log) == "boom"


def test_of_a_json_line_only_the_message_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text('{"level":"info","message":"all replicas have ended"}\n\n')
    assert logs.last_line(log) == "all replicas have ended"
    log.write_text('{"level":"info"}\n')
    assert logs.last_line(log) == '{"level":"info"}'
