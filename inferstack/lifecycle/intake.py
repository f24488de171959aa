"""From what a caller hands in to what the queue takes."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from inferstack.config import Settings
from inferstack.deployment import Deployment
from inferstack.engines.admission import Admission
from inferstack.lifecycle import payloads
from inferstack.lifecycle.directory import Directory, Target
from inferstack.lifecycle.refusals import refuse_if_late, refuse_large_metadata
from inferstack.lifecycle.types import MAX_METADATA, Caller, Submission
from inferstack.queue.codec import encode
from inferstack.queue.key_routes import KeyRoutes
from inferstack.queue.task_queue import Submit
from inferstack.storage.objects import ObjectStore
from inferstack.task import TaskSpec, new_task_id

CHECKERS = 2
"""Threads that check long inputs, beside those that log in and write objects."""


class Intake:
    """Checks submissions and makes task specs of them."""

    def __init__(
        self, directory: Directory, keys: KeyRoutes, store: ObjectStore, settings: Settings
    ) -> None:
        """Starts no thread; the first long input does."""
        self._keys = keys
        self._directory = directory
        self._store = store
        self._settings = settings
        self._checkers = ThreadPoolExecutor(CHECKERS, "admission")

    def stop(self) -> None:
        """Checks no more long inputs."""
        self._checkers.shutdown(wait=False, cancel_futures=True)

    async def prepare(
        self,
        caller: Caller,
        submission: Submission,
        key: str | None,
        trace: str | None,
        *,
        target: Target | None = None,
        inputs: int = 1,
        watch: bool = False,
    ) -> tuple[Target, Submit]:
        """Where a submission goes, and what goes there; a large input is stored first.

        Args:
            caller: who asks.
            submission: what for.
            key: the idempotency key.
            trace: a W3C traceparent.
            target: what takes over from the deployment that it went to first; None at first.
            inputs: how many are prepared in a row.
            watch: whether to tell this process when the task finishes.

        Raises:
            InvalidInputError: the model does not take this input.
            InvalidRequestError: the metadata are too large.
            ModelNotFoundError: no such model or version.
            DeadlineUnreachableError: it would be late, and asks to be refused then.
        """
        target, moves = await self._route(caller, submission, key, target)
        admission, data = target.admission, submission.data
        if admission.slow(data, inputs):
            cost = await self._check(admission, data)
        else:
            cost = admission.check(data)
        if submission.reject_if_late:
            refuse_if_late(target, submission)
        spec = _spec(target.deployment, caller, submission, cost, key, trace)
        encoded = encode(spec)
        if submission.metadata is not None and len(encoded) > MAX_METADATA:
            refuse_large_metadata(submission)
        if len(encoded) > self._settings.inline_limit:
            spec = await payloads.store_input(self._store, spec)
            encoded = encode(spec)
        fingerprint = _fingerprint(submission) if key else ""
        return target, Submit(spec, encoded, fingerprint, watch=watch, moves=moves)

    async def _route(
        self, caller: Caller, submission: Submission, key: str | None, other: Target | None
    ) -> tuple[Target, bool]:
        """Where a submission goes, and whether it moves on from there if the circuit is open.

        `other` is what takes over for where it went first; it takes the key along.
        """
        if other is not None:
            if key is not None:
                await self._keys.move(caller.tenant, key, other.deployment.name)
            return other, False
        target = self._directory.resolve(submission.model, submission.model_version)
        if key is not None:
            target = await self._holder(caller.tenant, key, target)
        chosen = submission.model_version is not None or target.deployment.fallback is None
        return target, not chosen and self._directory.fallback(target) is not None

    async def _holder(self, tenant: str, key: str, target: Target) -> Target:
        """The deployment that has an idempotency key; by now another version may be the newest."""
        name = await self._keys.route(tenant, key, target.deployment.name)
        return self._directory.named(name) or target

    async def _check(self, admission: Admission, data: dict[str, Any]) -> float:
        """Checks where it holds nobody up: the tokenizer lets the event loop run meanwhile."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checkers, admission.check, data)


def _spec(
    deployment: Deployment,
    caller: Caller,
    submission: Submission,
    cost: float,
    key: str | None,
    trace: str | None,
) -> TaskSpec:
    return TaskSpec(
        task_id=new_task_id(deployment.name),
        model=deployment.model,
        model_version=deployment.version,
        tenant=caller.tenant,
        data=submission.data,
        priority=submission.priority,
        timeout=submission.timeout,
        cost=cost,
        user=caller.user,
        metadata=submission.metadata,
        idempotency_key=key,
        trace=trace,
    )


def _fingerprint(submission: Submission) -> str:
    return hashlib.sha256(encode(submission)).hexdigest()[:32]
