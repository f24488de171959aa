"""From what a caller hands in to what the queue takes."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import DeploymentUnavailableError, InvalidInputError, ModelNotFoundError
from inferstack.lifecycle import payloads
from inferstack.lifecycle.directory import Directory, Target
from inferstack.lifecycle.refusals import refuse_if_late, refuse_large_metadata
from inferstack.lifecycle.types import MAX_METADATA, Caller, Submission
from inferstack.queue.codec import encode
from inferstack.queue.key_routes import KeyRoutes
from inferstack.queue.types import Submit
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
        moves = repeats = False
        if target is not None:
            cost = await self._check(target, submission, inputs)
            if key is not None:
                await self._keys.move(caller.tenant, key, target.deployment.name)
        else:
            target, cost, repeats = await self._route(caller.tenant, submission, key, inputs)
            moves = not repeats and await self._moves(target, submission, inputs)
        if submission.reject_if_late and not repeats:
            refuse_if_late(target, submission)
        spec = _spec(target.deployment, caller, submission, cost, key, trace)
        encoded = encode(spec)
        if submission.metadata is not None and len(encoded) > MAX_METADATA:
            refuse_large_metadata(submission)
        if len(encoded) > self._settings.inline_limit:
            spec = await payloads.store_input(self._store, spec)
            encoded = encode(spec)
        fingerprint = _fingerprint(submission) if key else ""
        return target, Submit(spec, encoded, fingerprint, watch=watch, moves=moves, repeats=repeats)

    async def _route(
        self, tenant: str, submission: Submission, key: str | None, inputs: int
    ) -> tuple[Target, float, bool]:
        """Where a submission goes, what it costs there, and whether only as a repeat.

        Checked before its key is written down: what is refused must not fill Redis.
        """
        try:
            target = self._directory.resolve(submission.model, submission.model_version)
            cost = await self._check(target, submission, inputs)
        except (ModelNotFoundError, DeploymentUnavailableError, InvalidInputError):
            holder = None if key is None else await self._repeated(tenant, key)
            if holder is None:
                raise
            return holder, 0.0, True
        if key is None:
            return target, cost, False
        holder, repeats = await self._holder(tenant, key, target, submission)
        if holder is not target and not repeats:
            cost = await self._check(holder, submission, inputs)
        return holder, cost, repeats

    async def _moves(self, target: Target, submission: Submission, inputs: int) -> bool:
        """Whether it moves on from there if the circuit is open, and is taken there."""
        if submission.model_version is not None or target.deployment.fallback is None:
            return False
        fallback = self._directory.fallback(target)
        try:
            if fallback is not None:
                await self._check(fallback, submission, inputs)
        except InvalidInputError:
            return False
        return fallback is not None

    async def _repeated(self, tenant: str, key: str) -> Target | None:
        """The deployment that has a task of the key; None if none has."""
        name = await self._keys.known(tenant, key)
        if name is None:
            return None
        holder = self._directory.named(name) or self._directory.former(name)
        return holder if await holder.queue.holder(tenant, key) is not None else None

    async def _holder(
        self, tenant: str, key: str, target: Target, submission: Submission
    ) -> tuple[Target, bool]:
        """The deployment that has an idempotency key; by now another version may be the newest.

        One that would not take the submission is gone to only for the task that it has already:
        then it is the second value that says so.

        Args:
            tenant: whose key.
            key: the key, which is the target's from now on if no other deployment has it.
            target: where the submission goes then.
            submission: what the key came with.
        """
        own = target.deployment.name
        name = await self._keys.route(tenant, key, own)
        if name == own:
            return target, False
        other = self._directory.named(name)
        if other is not None and _takes(other.deployment, target.deployment, submission):
            return other, False
        other = other or self._directory.former(name)
        if await other.queue.holder(tenant, key, give_up=True) is not None:
            return other, True
        await target.queue.free(tenant, key)
        await self._keys.move(tenant, key, own)
        return target, False

    async def _check(self, target: Target, submission: Submission, inputs: int) -> float:
        """The cost of an input; a long one is checked where it holds nobody up.

        The tokenizer lets the event loop run meanwhile.
        """
        admission, data = target.admission, submission.data
        if not admission.slow(data, inputs):
            return admission.check(data)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checkers, admission.check, data)


def _takes(other: Deployment, chosen: Deployment, submission: Submission) -> bool:
    """Whether a submission that goes to one deployment may as well go to another."""
    if other.state is DeploymentState.FAILED or other.model != chosen.model:
        return False
    return submission.model_version in (None, other.version)


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
