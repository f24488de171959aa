"""Copies what inferstack keeps in one Redis into another, whatever their versions.

Command by command and not by DUMP and RESTORE: a payload of the newer of two servers is refused by
the older one. Neither server may serve meanwhile.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from inferstack.errors import BackupError
from inferstack.queue.connection import translated

BATCH = 100
"""Keys that travel together: with bodies of 64 KiB that is a few megabytes."""
CHUNK = 1000
"""Members of a large key that travel together."""

OURS = "is:*"
LEFT_BEHIND = re.compile(rb"is:\{[^}]*\}:(live|status|idle|run:.*)|is:celery:.*", re.DOTALL)
"""What replicas say of themselves: those of the snapshot are gone, and their batches must not count
as crashes. With the note of a batch missing, a lease that runs out charges nothing. And Celery's
messages: they only say when, and are sent again at the start."""
DEADLINES = re.compile(rb"is:\{[^}]*\}:deadline")

KINDS = (b"hash", b"string", b"zset", b"list", b"stream", b"none")
"""What inferstack uses; `none` has just expired."""


class Key(NamedTuple):
    """One key of the source."""

    name: bytes
    kind: bytes
    """As TYPE says it."""
    ttl_ms: int
    """Negative if it never expires."""


async def empty(redis: "Redis") -> bool:
    """Whether a Redis holds nothing of inferstack's."""
    with translated():
        async for _ in redis.scan_iter(match=OURS, count=CHUNK):
            return False
    return True


async def copy(source: "Redis", target: "Redis", late_ms: int) -> None:
    """Copies every key of inferstack's, but what replicas say of themselves.

    Args:
        source: where from; any client.
        target: where to; it must hold nothing of inferstack's.
        late_ms: how long ago the data of the source was current. Deadlines move on by so much,
            so that a task has as much time left as it had.
    """
    with translated():
        async for keys in _batches(source):
            await _copy(source, target, keys, late_ms)


async def _batches(source: "Redis") -> AsyncIterator[list[Key]]:
    names: list[bytes] = []
    async for name in source.scan_iter(match=OURS, count=CHUNK):
        if not LEFT_BEHIND.fullmatch(name):
            names.append(name)
        if len(names) == BATCH:
            yield await _described(source, names)
            names = []
    if names:
        yield await _described(source, names)


async def _described(source: "Redis", names: Sequence[bytes]) -> list[Key]:
    pipe = source.pipeline(transaction=False)
    for name in names:
        pipe.type(name)
        pipe.pttl(name)
    answers = await pipe.execute()
    return [Key(*row) for row in zip(names, answers[::2], answers[1::2], strict=True)]


async def _copy(source: "Redis", target: "Redis", keys: Sequence[Key], late_ms: int) -> None:
    """Tasks and other small keys in one go, the few that may be large one by one."""
    await _copy_small(source, target, [key for key in keys if key.kind in (b"hash", b"string")])
    for name, kind, _ in keys:
        if kind not in KINDS:
            raise BackupError(f"{name!r} is a {kind.decode()}, which this version does not copy")
        if kind == b"zset":
            await _copy_zset(source, target, name, late_ms if DEADLINES.fullmatch(name) else 0)
        # SCAN may name a key twice, and a list that is written twice is doubled.
        elif kind == b"list" and not await target.exists(name):
            await _copy_list(source, target, name)
        elif kind == b"stream" and not await target.exists(name):
            await _copy_stream(source, target, name)


async def _copy_small(source: "Redis", target: "Redis", keys: Sequence[Key]) -> None:
    reads = source.pipeline(transaction=False)
    for key in keys:
        if key.kind == b"hash":
            reads.hgetall(key.name)
        else:
            reads.get(key.name)
    writes = target.pipeline(transaction=False)
    for key, value in zip(keys, await reads.execute(), strict=True):
        if value is None or value == {}:
            continue  # It expired in between.
        if key.kind == b"hash":
            writes.hset(key.name, mapping=value)
        else:
            writes.set(key.name, value, px=key.ttl_ms if key.ttl_ms > 0 else None)
    await writes.execute()


async def _copy_zset(source: "Redis", target: "Redis", name: bytes, shift: int) -> None:
    async for page in _pages(lambda start, end: source.zrange(name, start, end, withscores=True)):
        await target.zadd(name, {member: score + shift for member, score in page})


async def _copy_list(source: "Redis", target: "Redis", name: bytes) -> None:
    async for page in _pages(lambda start, end: source.lrange(name, start, end)):
        await target.rpush(name, *page)


async def _copy_stream(source: "Redis", target: "Redis", name: bytes) -> None:
    start = "-"
    while True:
        page: Any = await source.xrange(name, start, "+", CHUNK)
        if not page:
            return
        pipe = target.pipeline(transaction=False)
        for entry_id, fields in page:
            pipe.xadd(name, fields, id=entry_id)
        await pipe.execute()
        start = "(" + page[-1][0].decode()


async def _pages(read: Callable[[int, int], Awaitable[Any]]) -> AsyncIterator[Any]:
    """Members from rank to rank, until there are none."""
    start = 0
    while page := await read(start, start + CHUNK - 1):
        yield page
        start += len(page)
