"""Backup and restore of services that URLs name, and what goes wrong on the way."""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from inferstack.backup import folder as archive
from inferstack.backup.restore import restore
from inferstack.backup.save import save
from inferstack.config import Settings, load
from inferstack.errors import (
    BackupError,
    InferstackError,
    QueueUnavailableError,
    StackError,
    StorageUnavailableError,
)
from inferstack.lifecycle import recovery
from inferstack.lifecycle.payloads import result_key
from inferstack.local import binaries, control
from inferstack.local.home import Home, free_port
from inferstack.queue.codec import encode
from inferstack.queue.outbox import Outbox
from inferstack.queue.task_queue import prefix
from inferstack.queue.types import Claim, Completion
from inferstack.recorder.recorder import Recorder
from inferstack.storage import dump
from inferstack.storage.accounts import Accounts
from inferstack.storage.history import History
from inferstack.storage.objects import ObjectStore
from inferstack.task import Execution, TaskState
from tests.backup.conftest import Services
from tests.recorder.work import NAME
from tests.services import S3Server

RESULT = b'{"large":true}'


def silent(_: str) -> None:
    pass


async def backup(services: Services, target: Path) -> Path:
    await save(Home(services.settings.inferstack_home), services.settings, target, silent)
    return target


def with_s3(settings: Settings, endpoint: str, bucket: str) -> Settings:
    values = {
        "s3_endpoint": endpoint,
        "s3_access_key": S3Server.access,
        "s3_secret_key": S3Server.secret,
        "s3_bucket": bucket,
    }
    return load(**(settings.model_dump() | values))


async def archive_all(services: Services) -> None:
    outbox = Outbox(services.redis, [NAME], services.settings)
    recorder = Recorder(outbox, History(services.database), linger=0.0)
    while await recorder.step(1):
        pass


async def finish_large(services: Services) -> str:
    """A task whose result lies in the object store and whose row in PostgreSQL."""
    (task_id,) = await services.work.submit(1)
    (claim,) = [c for c in await services.work.queue.claim("w", 9) if c.task_id == task_id]
    return await complete_large(services, claim)


async def complete_large(services: Services, claim: Claim) -> str:
    """The same for one that runs."""
    key = result_key(claim.task_id, claim.attempt, "w", 7)
    await services.store.put(key, RESULT)
    done = Completion(claim.task_id, claim.attempt, b"", key, encode(Execution("w")))
    assert await services.work.queue.complete("w", [done]) == ["ok"]
    await archive_all(services)
    return claim.task_id


async def test_all_three_services_come_back_as_they_were(
    old: Services, new: Services, s3_endpoint: str, tmp_path: Path
) -> None:
    async with (
        Services(with_s3(old.settings, s3_endpoint, "old")) as source,
        Services(with_s3(new.settings, s3_endpoint, "new")) as target,
    ):
        await Accounts(source.database).create_user("alice", "a good password", tenant="acme")
        done = await finish_large(source)
        (running,) = await source.work.submit(1, timeout=3600.0)
        (claim,) = await source.work.queue.claim("host:1:a", 1)
        waiting = await source.work.submit(3, timeout=3600.0)
        deadline = await source.redis.zscore(f"{prefix(NAME)}deadline", waiting[0])

        made = await backup(source, tmp_path / "backup")
        assert not (made / archive.SECRETS).exists()
        # What happens later is not in it.
        await source.work.finish()
        await source.redis.flushall()
        home = Home(target.settings.inferstack_home)
        assert await restore(home, target.settings, made, silent) == 4

        kept = await History(target.database).get(done)
        assert kept is not None
        assert kept.result_ref is not None
        assert await target.store.get(kept.result_ref) == RESULT
        assert [user.username for user in await Accounts(target.database).users()] == ["alice"]
        late = Completion(running, claim.attempt + 1, b"{}", "", encode(Execution("host:1:a")))
        assert await target.work.queue.complete("host:1:a", [late]) == ["stale"]
        left = await target.redis.zscore(f"{prefix(NAME)}deadline", waiting[0])
        assert left is not None
        assert deadline is not None
        assert 0 <= left - deadline < 60_000
        assert await target.work.finish() == waiting
        await archive_all(target)
        ended = await History(target.database).get(waiting[0])
        assert ended is not None
        assert ended.state is TaskState.COMPLETED
        with pytest.raises(BackupError, match=r"Redis holds keys of inferstack already.*REDIS_URL"):
            await restore(home, target.settings, made, silent)
        await target.redis.flushall()
        with pytest.raises(BackupError, match=r"PostgreSQL holds the table.*DATABASE_URL"):
            await restore(home, target.settings, made, silent)


async def test_what_happens_between_redis_and_postgresql_is_mended(
    old: Services, new: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "AGE", -60.0)
    loop = asyncio.get_running_loop()
    pg_dump, later, done = dump.dump, [], []
    waiting = await old.work.submit(2, timeout=None)

    async def meanwhile() -> None:
        """Everything that can: one that waited ends, one comes and ends, one comes and waits."""
        (claim,) = await old.work.queue.claim("w", 1)
        done.extend([await complete_large(old, claim), await finish_large(old)])
        later.extend(await old.work.submit(1))
        await archive_all(old)

    def dump_later(tool: Path, url: str, target: Path) -> None:
        assert (target.parent / archive.REDIS).exists(), "Redis is asked first"
        assert not (target.parent / archive.OBJECTS).exists(), "the object store is asked last"
        asyncio.run_coroutine_threadsafe(meanwhile(), loop).result(60)
        pg_dump(tool, url, target)

    monkeypatch.setattr(dump, "dump", dump_later)
    made = await backup(old, tmp_path / "backup")
    home = Home(new.settings.inferstack_home)
    assert await restore(home, new.settings, made, silent) == 1
    history = History(new.database)
    for task_id in done:
        kept = await history.get(task_id)
        assert kept is not None
        assert kept.state is TaskState.COMPLETED
        assert await new.store.get(str(kept.result_ref)) == RESULT
    assert await recovery.Recovery(new.redis, new.database, new.settings).run() == 1
    assert set(await new.work.finish()) == {*later, *waiting} - {*done}
    await archive_all(new)
    for task_id in (*later, *waiting):
        ended = await history.get(task_id)
        assert ended is not None
        assert ended.state is TaskState.COMPLETED
    assert await new.redis.hlen(f"{prefix(NAME)}tenants") == 0


async def test_a_bucket_that_is_not_empty_is_refused(
    old: Services, new: Services, s3_endpoint: str, tmp_path: Path
) -> None:
    made = await backup(old, tmp_path / "backup")
    settings = with_s3(new.settings, s3_endpoint, "old")
    async with Services(settings) as target:
        await target.store.put("mine", b"x")
        with pytest.raises(BackupError, match=r"object store holds .* already.*S3_BUCKET"):
            await restore(Home(settings.inferstack_home), settings, made, silent)
    assert await new.redis.dbsize() == 0


async def test_the_wrong_object_store_is_noticed(
    old: Services, s3_endpoint: str, tmp_path: Path
) -> None:
    await finish_large(old)
    async with Services(with_s3(old.settings, s3_endpoint, "new")) as wrong:
        with pytest.raises(BackupError, match="none of the objects that the newest tasks"):
            await backup(wrong, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


async def test_a_backup_that_fails_on_one_object_leaves_nothing_of_the_others(
    old: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await finish_large(old)
    asked: list[str] = []
    later = asyncio.Event()

    async def get(_: ObjectStore, key: str) -> bytes:
        asked.append(key)
        if len(asked) == 1:
            raise StorageUnavailableError("the object store is away")
        await later.wait()
        return RESULT

    monkeypatch.setattr(ObjectStore, "get", get)
    with pytest.raises(StorageUnavailableError, match="is away"):
        await backup(old, tmp_path / "backup")
    later.set()
    await asyncio.wait_for(_all_ended(), 10)
    assert list(tmp_path.iterdir()) == []


async def _all_ended() -> None:
    """Returns once no copy of an object runs any more."""
    while copies := [t for t in asyncio.all_tasks() if "_copy_one" in repr(t)]:
        await asyncio.wait(copies)


@pytest.mark.parametrize(
    ("broken", "error", "text"),
    [
        ({"redis_url": "redis://127.0.0.1:{port}/0"}, QueueUnavailableError, "does not answer"),
        (
            {"database_url": "postgresql://a:b@127.0.0.1:{port}/c"},
            StorageUnavailableError,
            "PostgreSQL does not answer",
        ),
    ],
)
async def test_a_service_that_is_away_is_one_line_and_leaves_nothing(
    old: Services,
    tmp_path: Path,
    broken: dict[str, str],
    error: type[InferstackError],
    text: str,
) -> None:
    port = free_port(None)
    values = {name: url.format(port=port) for name, url in broken.items()}
    settings = load(**(old.settings.model_dump() | values))
    with pytest.raises(error, match=text):
        await save(Home(settings.inferstack_home), settings, tmp_path / "backup", silent)
    assert list(tmp_path.iterdir()) == []


async def test_without_pg_dump_the_missing_package_is_named(
    old: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(binaries, "_on_path", lambda _: [])
    monkeypatch.setattr(binaries, "_package", lambda _: None)
    with pytest.raises(StackError, match=r"pg_dump of PostgreSQL \d+ or newer.*postgresql-client"):
        await backup(old, tmp_path / "backup")
    assert list(tmp_path.iterdir()) == []


async def test_without_a_stack_there_is_nothing_to_back_up(home: Home, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="No stack has run in"):
        await save(home, load(inferstack_home=home.root), tmp_path / "backup", silent)


async def test_tables_of_a_newer_version_are_refused(
    old: Services, new: Services, tmp_path: Path
) -> None:
    made = await backup(old, tmp_path / "backup")
    manifest = made / archive.MANIFEST
    newer = json.loads(manifest.read_text()) | {"revision": "9999", "inferstack": "9.0.0"}
    manifest.write_text(json.dumps(newer))
    with pytest.raises(BackupError, match=r"inferstack 9\.0\.0, whose tables are newer"):
        await restore(Home(new.settings.inferstack_home), new.settings, made, silent)


async def test_a_restore_that_fails_half_way_says_where_a_part_may_be(
    old: Services, new: Services, tmp_path: Path
) -> None:
    made = await backup(old, tmp_path / "backup")
    spoil(made)
    where = "a part may be in the Redis of REDIS_URL and the database of DATABASE_URL: empty"
    with pytest.raises(BackupError, match=f"pg_restore failed: .* is not restored; {where}"):
        await restore(Home(new.settings.inferstack_home), new.settings, made, silent)


async def test_a_home_with_data_is_refused_and_left_as_it_is(
    old: Services, folder: Path, tmp_path: Path
) -> None:
    made = await backup(old, tmp_path / "backup")
    for part in ("redis/appendonlydir", "objects/tasks", "postgres/data/base"):
        home = Home(folder / part.split("/")[0])
        (home.root / part).mkdir(parents=True)
        with pytest.raises(BackupError, match=f"{part.rpartition('/')[0]} holds data"):
            await restore(home, load(inferstack_home=home.root), made, silent)
        assert (home.root / part).exists()
        assert not home.restoring.exists()


async def test_a_home_without_room_is_refused(
    old: Services, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await backup(old, tmp_path / "backup")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500 * 2**20))
    with pytest.raises(BackupError, match=r"only 500 MB are free for .* 500 MB are needed"):
        await restore(home, load(inferstack_home=home.root), made, silent)
    assert not home.restoring.exists()


async def test_a_home_at_which_another_command_works_is_refused(
    old: Services, home: Home, tmp_path: Path
) -> None:
    made = await backup(old, tmp_path / "backup")
    assert home.lock()
    try:
        with pytest.raises(BackupError, match="starting or stopping"):
            await restore(Home(home.root), load(inferstack_home=home.root), made, silent)
    finally:
        home.unlock()


async def test_what_an_ended_restore_has_left_is_refused_by_up_and_cleared_by_the_next(
    old: Services, home: Home, tmp_path: Path
) -> None:
    made = await backup(old, tmp_path / "backup")
    # As after kill -9.
    home.restoring.touch()
    (home.redis / "appendonly.aof").write_bytes(b"half of it")
    (home.objects / "tasks").mkdir()
    with pytest.raises(StackError, match="holds a part of a backup"):
        control.refuse_part(home)

    begun = asyncio.Event()

    def tell(line: str) -> None:
        if line.startswith("Objects"):
            begun.set()

    work = asyncio.create_task(restore(home, load(inferstack_home=home.root), made, tell))
    await begun.wait()
    work.cancel()
    with pytest.raises(BackupError, match=r"^interrupted; the backup is not restored$"):
        await work
    assert {path.name for path in home.root.iterdir()} == {"logs", "lock", "identity.json"}
    control.refuse_part(home)


def spoil(made: Path) -> None:
    """Puts nonsense in place of the dump, with the right checksums."""
    (made / archive.POSTGRES).write_bytes(b"not a dump")
    sums = made / archive.SUMS
    lines = [
        f"{hashlib.sha256(b'not a dump').hexdigest()}  {archive.POSTGRES}"
        if line.endswith(archive.POSTGRES)
        else line
        for line in sums.read_text().splitlines()
    ]
    sums.write_text("\n".join(lines) + "\n")
    manifest = made / archive.MANIFEST
    digest = hashlib.sha256(sums.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sums": digest}))
