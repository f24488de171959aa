"""What one deployment does to the others, and how limits change."""

import asyncio
import logging
import time
from typing import Any

import msgspec
import pytest

from inferstack.concurrency import end
from inferstack.deployment import Circuit, DeploymentState
from inferstack.errors import (
    CircuitOpenError,
    InvalidInputError,
    QueueFullError,
    TenantQueueFullError,
)
from inferstack.lifecycle import directory
from inferstack.lifecycle.types import Receipt
from inferstack.queue.codec import encode
from inferstack.queue.registry import Registry
from inferstack.queue.statistics import sample
from inferstack.queue.types import Enqueued, Submit
from inferstack.task import new_task_id
from tests.lifecycle.conftest import ANN, ECHO, House
from tests.lifecycle.test_tasks import hello

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


OTHER = {"required": ["other"]}


async def _serve_two_versions(house: House, until_ms: int) -> None:
    """Version 2 with its circuit open until then, by the clock of Redis; version 1 is fine.

    From now on only the test looks at the queues.
    """
    await end(house.tasks._directory._task)
    await Registry(house.redis).put(SECOND)
    await house.redis.hset("is:{echo:2}:breaker", mapping={"until": until_ms, "opens": 1})
    await house.tasks.refresh()


async def _far(house: House) -> int:
    seconds, _ = await house.redis.time()
    return (seconds + 3600) * 1000


async def _open_unseen(house: House) -> None:
    """As above, but this process does not know of the open circuit yet."""
    await _serve_two_versions(house, await _far(house))
    for target in house.tasks._directory.targets():
        target.statistics = None


async def test_a_fallback_takes_over_while_the_circuit_is_open(house: House) -> None:
    await _serve_two_versions(house, await _far(house))
    assert (await house.tasks.submit(ANN, hello())).spec.model_version == 1
    with pytest.raises(CircuitOpenError) as refused:
        await house.tasks.submit(ANN, hello(model_version=2))
    assert refused.value.retry_after is not None
    await house.redis.delete("is:{echo:2}:breaker")
    await house.tasks.refresh()
    assert (await house.tasks.submit(ANN, hello())).spec.model_version == 2


async def _versions(house: House, count: int) -> list[int]:
    receipts = [await house.tasks.submit(ANN, hello()) for _ in range(count)]
    return [receipt.spec.model_version for receipt in receipts]


async def test_one_request_tries_a_deployment_that_may_have_recovered(house: House) -> None:
    await _serve_two_versions(house, 1)
    assert await _versions(house, 3) == [2, 1, 1]
    await house.tasks.refresh()
    assert await _versions(house, 1) == [1]
    tried = house.tasks._directory.named("echo:2")
    assert tried is not None
    assert len(await tried.queue.claim("host:2:b", 5)) == 1


async def test_a_process_that_does_not_know_of_an_open_circuit_yet_takes_the_fallback(
    house: House,
) -> None:
    await _open_unseen(house)
    assert await _versions(house, 1) == [1]
    answer = await house.tasks.run(ANN, hello(), 0.01)
    assert isinstance(answer, Receipt)
    assert answer.spec.model_version == 1
    (receipt,) = await house.tasks.submit_many(ANN, [hello()])
    assert isinstance(receipt, Receipt)
    assert receipt.spec.model_version == 1
    with pytest.raises(CircuitOpenError):
        await house.tasks.submit(ANN, hello(model_version=2))


async def test_who_goes_on_to_the_fallback_waits_no_longer_than_it_asked_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _open_unseen(house)
    first = house.tasks._directory.named("echo:2")
    assert first is not None
    enqueue = first.queue.enqueue

    async def slowly(*given: Any, **options: Any) -> Any:
        await asyncio.sleep(1.2)  # most of the wait
        return await enqueue(*given, **options)

    monkeypatch.setattr(first.queue, "enqueue", slowly)
    began = time.monotonic()
    answer = await house.tasks.run(ANN, hello(), 1.5)
    assert isinstance(answer, Receipt)
    assert 1.5 <= time.monotonic() - began < 2.6


async def test_a_key_that_moved_to_the_fallback_makes_one_task(house: House) -> None:
    await _open_unseen(house)
    receipts = await asyncio.gather(
        *(house.tasks.submit(ANN, hello(), idempotency_key="k") for _ in range(5))
    )
    assert {receipt.spec.model_version for receipt in receipts} == {1}
    assert len({receipt.spec.task_id for receipt in receipts}) == 1
    # One that was on its way to the first deployment all the time, which is fine again by now.
    await house.redis.delete("is:{echo:2}:breaker")
    first = house.tasks._directory.named("echo:2")
    assert first is not None
    spec = msgspec.structs.replace(receipts[0].spec, task_id=new_task_id("echo:2"), model_version=2)
    (late,) = await first.queue.enqueue([Submit(spec, encode(spec), moves=True)])
    assert late.status is Enqueued.OPEN
    again = await house.tasks.run(ANN, hello(), 0.01, idempotency_key="k")
    assert isinstance(again, Receipt)
    assert again.spec.task_id == receipts[0].spec.task_id


async def test_an_input_that_the_fallback_refuses_waits_for_its_own_version(house: House) -> None:
    await Registry(house.redis).put(msgspec.structs.replace(ECHO, input_schema=OTHER))
    await _open_unseen(house)
    with pytest.raises(CircuitOpenError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await house.redis.delete("is:{echo:2}:breaker")
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert receipt.spec.model_version == 2


async def test_a_key_that_is_on_its_way_to_the_fallback_is_taken_there_only(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The circuit closes while one request goes on from it to the fallback, and one comes anew."""
    await _open_unseen(house)
    keys = house.tasks._intake._keys
    move = keys.move

    async def overtaken(tenant: str, key: str, deployment: str) -> None:
        monkeypatch.setattr(keys, "move", move)
        await house.redis.delete("is:{echo:2}:breaker")
        others.append(await house.tasks.submit(ANN, hello(), idempotency_key=key))
        await move(tenant, key, deployment)

    others: list[Receipt] = []
    monkeypatch.setattr(keys, "move", overtaken)
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert [other.task_id for other in others] == [receipt.task_id]


async def test_a_key_that_the_fallback_did_not_take_comes_back(house: House) -> None:
    await _open_unseen(house)
    for _ in range(10):
        await house.tasks.submit(ANN, hello())  # the quota at the fallback
    with pytest.raises(TenantQueueFullError):
        await house.tasks.submit(ANN, hello(), idempotency_key="k")
    await house.redis.delete("is:{echo:2}:breaker")
    await Registry(house.redis).put(msgspec.structs.replace(ECHO, state=DeploymentState.FAILED))
    await house.tasks.refresh()
    receipt = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (receipt.spec.model_version, receipt.existing) == (2, False)
    again = await house.tasks.submit(ANN, hello(), idempotency_key="k")
    assert (again.task_id, again.existing) == (receipt.task_id, True)


async def test_more_processes_than_probes_pass_take_the_fallback(house: House) -> None:
    await _serve_two_versions(house, 1)
    versions = []
    for _ in range(6):
        await house.tasks.refresh()
        for target in house.tasks._directory.targets():
            target.probe = target.circuit is Circuit.HALF_OPEN  # as in another process
        versions += await _versions(house, 1)
    assert versions == [2, 2, 2, 2, 1, 1]


async def test_without_a_fallback_an_open_circuit_refuses(house: House) -> None:
    await Registry(house.redis).put(msgspec.structs.replace(SECOND, fallback=None))
    far = await _far(house)
    await house.redis.hset("is:{echo:2}:breaker", mapping={"until": far, "opens": 1})
    await house.tasks.refresh()
    with pytest.raises(CircuitOpenError):
        await house.tasks.submit(ANN, hello())
