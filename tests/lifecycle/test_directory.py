"""What one deployment does to the others, and how limits change."""

import asyncio
import logging
import random
from typing import Any

import msgspec
import pytest

from inferstack.errors import CircuitOpenError, InvalidInputError, QueueFullError
from inferstack.lifecycle import directory
from inferstack.queue.registry import Registry
from inferstack.queue.statistics import sample
from tests.lifecycle.conftest import ECHO, House
from tests.lifecycle.test_tasks import ANN, hello

TEXT = msgspec.structs.replace(
    ECHO,
    model="text",
    engine="transformers",
    max_cost=8.0,
    input_schema={"type": "object", "required": ["text"]},
)


@pytest.mark.parametrize("content", [None, "{"], ids=["missing", "corrupt"])
async def test_a_broken_tokenizer_leaves_schema_checks_and_all_other_models(
    house: House, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    folder = house.settings.model_path / "text" / "1"
    folder.mkdir(parents=True)
    config = "engine: transformers\ntask: sentence-embedding\nlimits: {max_cost: 8}\n"
    (folder / "config.yaml").write_text(config)
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    other = msgspec.structs.replace(ECHO, model="other")
    for deployment in (TEXT, other):
        await Registry(house.redis).put(deployment)
    for _ in range(3):
        await house.tasks.refresh()
    receipt = await house.tasks.submit(ANN, hello(model="other"))
    assert receipt.spec.model == "other"
    await house.tasks.submit(ANN, hello(model="text"))
    with pytest.raises(InvalidInputError):
        await house.tasks.submit(ANN, hello(model="text", data={}))
    told = [r for r in caplog.records if "text:1" in r.message and "schema only" in r.message]
    assert len(told) == 1


async def test_looking_goes_on_after_any_error(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(directory, "REFRESH", 0.01)
    calls = 0

    async def broken(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise KeyError("a mistake")
        return await sample(*args)

    monkeypatch.setattr(directory, "sample", broken)
    async with asyncio.timeout(10):
        while calls < 4:
            await asyncio.sleep(0.01)
    assert [r.levelno for r in caplog.records].count(logging.ERROR) == 2


async def test_a_new_limit_of_the_queue_is_taken(house: House) -> None:
    await house.tasks.submit(ANN, hello())
    await Registry(house.redis).put(msgspec.structs.replace(ECHO, max_queue=1))
    await house.tasks.refresh()
    with pytest.raises(QueueFullError):
        await house.tasks.submit(ANN, hello())
    await Registry(house.redis).put(ECHO)
    await house.tasks.refresh()
    await house.tasks.submit(ANN, hello())


async def test_a_folder_that_cannot_be_read_does_not_stop_the_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> Any:
        raise PermissionError("no")

    monkeypatch.setattr(directory, "scan", forbidden)
    await Registry(house.redis).put(msgspec.structs.replace(ECHO, model="other"))
    await house.tasks.refresh()
    receipt = await house.tasks.submit(ANN, hello(model="other"))
    assert receipt.spec.model == "other"


SECOND = msgspec.structs.replace(ECHO, version=2, fallback=1)


async def _serve_two_versions(house: House, until_ms: int) -> None:
    """Version 2 with its circuit open until then, by the clock of Redis; version 1 is fine."""
    await Registry(house.redis).put(SECOND)
    await house.redis.hset("is:{echo:2}:breaker", mapping={"until": until_ms, "opens": 1})
    await house.tasks.refresh()


async def _far(house: House) -> int:
    seconds, _ = await house.redis.time()
    return (seconds + 3600) * 1000


async def test_a_fallback_takes_over_while_the_circuit_is_open(house: House) -> None:
    await _serve_two_versions(house, await _far(house))
    assert (await house.tasks.submit(ANN, hello())).spec.model_version == 1
    with pytest.raises(CircuitOpenError) as refused:
        await house.tasks.submit(ANN, hello(model_version=2))
    assert refused.value.retry_after is not None
    await house.redis.delete("is:{echo:2}:breaker")
    await house.tasks.refresh()
    assert (await house.tasks.submit(ANN, hello())).spec.model_version == 2


async def test_a_few_requests_try_a_deployment_that_may_have_recovered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _serve_two_versions(house, 1)
    chosen = iter([directory.PROBING / 2, directory.PROBING * 2])
    monkeypatch.setattr(random, "random", lambda: next(chosen))
    receipts = [await house.tasks.submit(ANN, hello()) for _ in range(2)]
    assert [receipt.spec.model_version for receipt in receipts] == [2, 1]


async def test_without_a_fallback_an_open_circuit_refuses(house: House) -> None:
    await Registry(house.redis).put(msgspec.structs.replace(SECOND, fallback=None))
    far = await _far(house)
    await house.redis.hset("is:{echo:2}:breaker", mapping={"until": far, "opens": 1})
    await house.tasks.refresh()
    with pytest.raises(CircuitOpenError):
        await house.tasks.submit(ANN, hello())
