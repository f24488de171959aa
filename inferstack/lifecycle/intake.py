"""From what a caller hands in to what the queue takes."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState
from inferstack.errors import InvalidInputError
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
        if target is not None:
            cost, moves = await self._check(target, submission, inputs), False
            if key is not None:
                await self._keys.move(caller.tenant, key, target.deployment.name)
        else:
            target, cost = await self._route(caller.tenant, submission, key, inputs)
            moves = self._moves(target, submission)
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
        self, tenant: str, submission: Submission, key: str | None, inputs: int
    ) -> tuple[Target, float]:
        """Where a submission goes, and what it costs there.

        Checked before its key is written down: what is refused must not fill Redis.
        """
        target = self._directory.resolve(submission.model, submission.model_version)
        cost, refusal = 0.0, None
        try:
            cost = await self._check(target, submission, inputs)
        except InvalidInputError as error:
            refusal = error
        if key is not None:
            holder = await self._holder(tenant, key, target, takes=refusal is None)
            if holder.deployment.name != target.deployment.name:
                return holder, await self._check(holder, submission, inputs)
        if refusal is not None:
            raise refusal
        return target, cost

    def _moves(self, target: Target, submission: Submission) -> bool:
        """Whether it moves on from there if the circuit is open."""
        chosen = submission.model_version is not None or target.deployment.fallback is None
        return not chosen and self._directory.fallback(target) is not None

    async def _holder(self, tenant: str, key: str, target: Target, *, takes: bool) -> Target:
        """The deployment that has an idempotency key; by now another version may be the newest.

        One that takes no work any more is gone to only for the task that it has already.

        Args:
            tenant: whose key.
            key: the key.
            target: where the submission goes if no other deployment has the key.
            takes: whether the key is the target's from now on then.
        """
        own = target.deployment.name
        if takes:
            name = await self._keys.route(tenant, key, own)
        else:
            name = await self._keys.known(tenant, key) or own
        if name == own:
            return target
        other = self._directory.named(name)
        if other is not None and other.deployment.state is not DeploymentState.FAILED:
            return other
        other = other or self._directory.former(name)
        if await other.queue.give_up(tenant, key) is not None:
            return other
        if takes:
            await target.queue.free(tenant, key)
            await self._keys.move(tenant, key, own)
        return target

    async def _check(self, target: Target, submission: Submission, inputs: int) -> float:
        """The cost of an input; a long one is checked where it holds nobody up.

        The tokenizer lets the event loop run meanwhile.
        """
        admission, data = target.admission, submission.data
        if not admission.slow(data, inputs):
            return admission.check(data)
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
