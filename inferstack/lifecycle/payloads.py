"""Inputs and results that are too large for Redis and PostgreSQL lie in the object store."""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from inferstack.errors import NotFoundError, StorageUnavailableError
from inferstack.queue.codec import UNREADABLE, encode
from inferstack.storage.objects import ObjectStore
from inferstack.task import Task, TaskSpec

log = logging.getLogger(__name__)

FOLDER = "tasks"
"""What every key begins with."""


def input_key(task_id: str) -> str:
    """Where the input of a task lies."""
    return f"{FOLDER}/{task_id}/input.json"


def result_key(task_id: str, attempt: int, worker: str, number: int) -> str:
    """Where the result of one lease lies; a late one cannot overwrite another's.

    Nor where a failover lost a claim: then the next one has the same attempt, of another replica or
    of the same one. `number` tells the leases of a replica apart.
    """
    return f"{FOLDER}/{task_id}/result-{attempt}-{worker}-{number}.json"


def task_of(key: str) -> str:
    """The id of the task that a key belongs to; something else if it is none of these keys."""
    return key.removeprefix(f"{FOLDER}/").partition("/")[0]


async def store_input(store: ObjectStore, spec: TaskSpec) -> TaskSpec:
    """Moves the input to the object store; returns the spec that refers to it."""
    key = input_key(spec.task_id)
    await store.put(key, encode(spec.data))
    return msgspec.structs.replace(spec, data=None, data_ref=key)


async def discard(store: ObjectStore, keys: Sequence[str]) -> None:
    """Removes bodies that no task refers to; what cannot be removed now is only logged."""
    try:
        await store.delete(keys)
    except StorageUnavailableError as error:
        log.warning("objects that nobody needs stay behind: %s", error)


async def load_input(store: ObjectStore, spec: TaskSpec) -> TaskSpec:
    """The spec with its input in it.

    Raises:
        NotFoundError: there is none, or what is there is no JSON any more.
        StorageUnavailableError: the store does not answer.
    """
    if spec.data_ref is None:
        return spec
    body = await store.get(spec.data_ref)
    try:
        data: Any = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise NotFoundError(f"the object {spec.data_ref} is spoiled: {error}") from error
    return msgspec.structs.replace(spec, data=data)


async def load_result(store: ObjectStore, task: Task) -> Task:
    """The task with its result in it."""
    if task.result_ref is None or task.result is not None:
        return task
    return msgspec.structs.replace(task, result=msgspec.Raw(await store.get(task.result_ref)))
