"""The folder of a backup: whole or refused."""

import stat
import subprocess
from pathlib import Path

import pytest

from inferstack.backup import folder, save
from inferstack.backup.folder import FORMAT, Manifest
from inferstack.errors import BackupError


@pytest.fixture
async def made(tmp_path: Path) -> Path:
    target = tmp_path / "deep" / "backup"
    with folder.draft(target) as draft:
        await draft.write("objects/tasks/a/input.json", b"{}")
        await draft.write("objects/tasks/b/result-1.json", b"[1]")
        (draft.path / "redis.rdb").write_bytes(b"redis")
        assert draft.add("redis.rdb") == 5
        manifest = Manifest(
            format=FORMAT,
            inferstack="0.1.0",
            created_at="2026-01-05T09:30:00+00:00",
            redis="Redis 7.0.15",
            redis_database=0,
            redis_time_ms=1,
            postgres=15,
            revision="0001",
            files=draft.files,
            bytes=draft.bytes,
            sums=draft.seal(),
        )
        folder.write_manifest(draft, manifest)
        assert not target.exists()
    return target


def test_what_was_written_is_read(made: Path) -> None:
    manifest = folder.read(made)
    assert (manifest.files, manifest.bytes) == (3, 10)
    assert sorted(folder.objects(made)) == ["tasks/a/input.json", "tasks/b/result-1.json"]
    assert folder.secrets(made) is None
    assert [path.name for path in made.parent.iterdir()] == ["backup"]


def test_it_can_be_checked_without_inferstack(made: Path) -> None:
    command = ["sha256sum", "--check", "--quiet", folder.SUMS]
    assert subprocess.run(command, cwd=made, check=False).returncode == 0
    (made / "redis.rdb").write_bytes(b"other")
    assert subprocess.run(command, cwd=made, check=False, capture_output=True).returncode == 1


def test_its_owner_alone_may_read_it(made: Path) -> None:
    for path in (made, *made.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_file_that_changed_is_refused(made: Path) -> None:
    (made / "redis.rdb").write_bytes(b"redit")
    with pytest.raises(BackupError, match=r"damaged: .*redis\.rdb is not as it was written"):
        folder.read(made)


def test_a_file_that_was_cut_is_refused(made: Path) -> None:
    (made / "objects/tasks/b/result-1.json").write_bytes(b"[1")
    with pytest.raises(BackupError, match=r"damaged: .*result-1\.json"):
        folder.read(made)


def test_a_file_that_is_missing_is_refused(made: Path) -> None:
    (made / "redis.rdb").unlink()
    with pytest.raises(BackupError, match=r"not whole: .*redis\.rdb is missing"):
        folder.read(made)


def test_a_list_of_checksums_that_was_cut_is_refused(made: Path) -> None:
    sums = made / folder.SUMS
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(BackupError, match="SHA256SUMS is not as it was written"):
        folder.read(made)


@pytest.mark.parametrize("lost", ["manifest.json", ""])
def test_a_backup_that_was_not_finished_or_is_none_is_refused(made: Path, lost: str) -> None:
    target = made if lost else made / "none"
    (made / "manifest.json").unlink()
    with pytest.raises(BackupError, match=r"is no backup, or not a whole one"):
        folder.read(target)


def test_a_manifest_that_is_nonsense_is_refused(made: Path) -> None:
    (made / folder.MANIFEST).write_text('{"format": 1')
    with pytest.raises(BackupError, match=r"cannot read .*manifest\.json"):
        folder.read(made)


def test_a_backup_of_a_newer_version_is_refused(made: Path) -> None:
    (made / folder.MANIFEST).write_text('{"format": 2, "inferstack": "9.0.0", "new": []}')
    with pytest.raises(BackupError, match=r"made by inferstack 9\.0\.0.*update inferstack"):
        folder.read(made)


def test_what_stands_in_its_place_is_not_touched(made: Path) -> None:
    with pytest.raises(BackupError, match="exists already"), folder.draft(made):
        pass
    folder.read(made)


async def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    async def make() -> None:
        with folder.draft(tmp_path / "backup") as draft:
            (draft.path / "full").symlink_to("/dev/full")
            await draft.write("full", b"x" * 10_000)

    with pytest.raises(BackupError, match="No space left on device; nothing is kept of it"):
        await make()
    assert list(tmp_path.iterdir()) == []


async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def make() -> None:
        with folder.draft(tmp_path / "backup") as draft:
            await draft.write("x", b"x")
            raise BackupError("broke off")

    with pytest.raises(BackupError, match="broke off"):
        await make()
    assert list(tmp_path.iterdir()) == []


def test_what_is_smaller_than_a_megabyte_is_not_told_as_nothing() -> None:
    assert [save._size(count) for count in (6220, 2**20)] == ["6.1 KB", "1.0 MB"]
