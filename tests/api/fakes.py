"""A pretence of `Tasks` for what is purely HTTP, and the application over it."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from inferstack.api.app import assemble
from inferstack.api.auth import Authenticator
from inferstack.api.edge import Edge
from inferstack.api.exposition import Exposition
from inferstack.api.health import Check, Monitor
from inferstack.api.overview import Overview
from inferstack.api.services import Services
from inferstack.api.tokens import Tokens
from inferstack.config import Settings
from inferstack.deployment import Deployment, DeploymentState, ReplicaStatus
from inferstack.errors import InferstackError, ModelNotFoundError, TaskNotFoundError
from inferstack.lifecycle.dead_letters import DeadLetters
from inferstack.lifecycle.tasks import Tasks
from inferstack.lifecycle.types import Answer, BatchAnswer, Caller, Receipt, Submission
from inferstack.lifecycle.waits import Departure
from inferstack.queue.statistics import QueueStatistics
from inferstack.storage.accounts import Accounts, ApiKey, User
from inferstack.storage.history import HistoryFilter, HistoryPage
from inferstack.storage.usage import Usage
from inferstack.task import Execution, Task, TaskError, TaskSpec, TaskState, new_task_id
from inferstack.telemetry.traces import Tracer

SECRET = "a secret of thirty-two characters"
NOW = 1_795_449_600.25
PASSWORD = "correct horse"


class FakeTasks:
    """Remembers tasks, finishes those waited for at once, and raises what it is told to."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.finishes = True
        self.delay = 0.0
        self.cut = asyncio.Event()
        self.departures: list[Departure | None] = []

    def add(self, caller: Caller, submission: Submission, state: TaskState) -> Task:
        if submission.model not in (None, "echo"):
            raise ModelNotFoundError(f"there is no model '{submission.model}'")
        spec = TaskSpec(
            task_id=new_task_id("echo:1"),
            model="echo",
            model_version=1,
            tenant=caller.tenant,
            user=caller.user,
            data=submission.data,
            priority=submission.priority,
        )
        done = state is TaskState.COMPLETED
        task = Task(
            spec=spec,
            state=state,
            attempts=1 if done else 0,
            created_at=NOW,
            started_at=NOW + 0.1 if done else None,
            completed_at=NOW + 0.3 if done else None,
            execution=Execution("w", 1.0, 2.0, 32) if done else None,
            result=msgspec.Raw(msgspec.json.encode(submission.data)) if done else None,
        )
        self.tasks[spec.task_id] = task
        return task

    async def submit(self, caller: Caller, submission: Submission, **options: Any) -> Receipt:
        self.calls.append({"caller": caller, "submission": submission, **options})
        if self.error is not None:
            raise self.error
        task = self.add(caller, submission, TaskState.QUEUED)
        return Receipt(task.spec, task.state, 3, 0.25, NOW)

    async def run(
        self,
        caller: Caller,
        submission: Submission,
        wait: float,
        *,
        departure: Departure | None = None,
        **options: Any,
    ) -> Answer:
        self.departures.append(departure)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.cut.wait(), self.delay)
        if not self.finishes or self.cut.is_set():
            return await self.submit(caller, submission, wait=wait, **options)
        self.calls.append({"caller": caller, "submission": submission, "wait": wait, **options})
        if self.error is not None:
            raise self.error
        return self.add(caller, submission, TaskState.COMPLETED)

    async def submit_many(
        self, caller: Caller, items: Sequence[Submission | InferstackError], **options: Any
    ) -> list[BatchAnswer]:
        answers: list[BatchAnswer] = []
        for item in items:
            if isinstance(item, InferstackError):
                answers.append(item)
                continue
            try:
                answers.append(await self.submit(caller, item, **options))
            except InferstackError as error:
                answers.append(error)
        return answers

    async def get(self, caller: Caller, task_id: str, wait: float = 0.0) -> Task:
        self.calls.append({"caller": caller, "task_id": task_id, "wait": wait})
        task = self.tasks.get(task_id)
        if task is None or not caller.may_see(task):
            raise TaskNotFoundError(f"there is no task {task_id}", task_id=task_id)
        return task

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        task = await self.get(caller, task_id)
        return msgspec.structs.replace(task, state=TaskState.CANCELLED)

    async def list(self, caller: Caller, wanted: HistoryFilter) -> HistoryPage:
        self.calls.append({"caller": caller, "filter": wanted})
        return HistoryPage(tasks=[*self.tasks.values()], next_cursor="next")

    def fail(self, task_id: str, error: TaskError) -> None:
        self.tasks[task_id] = msgspec.structs.replace(
            self.tasks[task_id], state=TaskState.FAILED, error=error
        )

    def cut_waits(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self.cut.set)

    def deployments(self) -> Sequence[Deployment]:
        broken = Deployment(
            model="broken", version=1, state=DeploymentState.FAILED, reason="no such file"
        )
        return [Deployment(model="echo", version=1, state=DeploymentState.READY), broken]

    def statistics(self) -> dict[str, QueueStatistics]:
        echo = QueueStatistics(
            waiting={"high": 1, "normal": 2, "low": 0},
            delayed=0,
            running=4,
            outbox=5,
            completed=6,
            failed=0,
            expired=0,
            replicas=[ReplicaStatus(worker="host:1:abc", capacity=10.0)],
        )
        return {"echo:1": echo}


class FakeAccounts:
    """One user, ann, and the keys she makes."""

    def __init__(self) -> None:
        self.keys: dict[str, ApiKey] = {}

    async def verify_password(self, username: str, password: str) -> User | None:
        if (username, password) != ("ann", PASSWORD):
            return None
        return User(id="1", username="ann", tenant="acme", role="user")

    async def create_api_key(self, username: str, name: str) -> tuple[ApiKey, str]:
        plaintext = f"is_{name}"
        key = ApiKey(
            id=f"id-{name}",
            name=name,
            prefix="is_",
            username=username,
            tenant="acme",
            role="user",
            created_at=NOW,
            revoked_at=None,
        )
        self.keys[plaintext] = key
        return key, plaintext

    async def api_keys(
        self, username: str | None = None, limit: int | None = None
    ) -> Sequence[ApiKey]:
        return [key for key in self.keys.values() if username in (None, key.username)][:limit]

    async def revoke_api_key(self, key_id: str, username: str | None = None) -> None:
        self.keys = {text: key for text, key in self.keys.items() if key.id != key_id}


class World:
    """The application over pretended services, and handles on those."""

    def __init__(
        self, checks: Sequence[Check] = (), *, tracer: Tracer | None = None, **settings: Any
    ) -> None:
        given = {
            "secret_key": SECRET,
            "redis_url": "redis://127.0.0.1:1",
            "default_model": "echo",
        } | settings
        self.settings = Settings(**given)
        self.tasks = FakeTasks()
        self.accounts = FakeAccounts()
        self.lookups = 0
        self.key_error: Exception | None = None
        secret = self.settings.secret_key
        self.tokens = Tokens(secret.get_secret_value(), 3600) if secret else None
        self.authenticator = Authenticator(self.settings, self.tokens, self.find_key)
        tasks, monitor = cast("Tasks", self.tasks), Monitor(checks)
        exposition = Exposition(tasks, monitor.findings, self.settings)
        self.services = Services(
            self.settings,
            tasks,
            cast("Accounts", self.accounts),
            self.authenticator,
            self.tokens,
            monitor,
            exposition,
            Overview(tasks, monitor, exposition),
            cast("DeadLetters", None),  # the routes of these two are tested over real ones
            cast("Usage", None),
            tracer,
        )
        self.edge: Edge = assemble(self.services)

    async def find_key(self, plaintext: str) -> ApiKey | None:
        self.lookups += 1
        await asyncio.sleep(0)
        if self.key_error is not None:
            raise self.key_error
        return self.accounts.keys.get(plaintext)

    def bearer(self, user: str = "ann", tenant: str = "acme", role: str = "user") -> dict[str, str]:
        assert self.tokens is not None
        return {"authorization": f"Bearer {self.tokens.issue(Caller(tenant, user, role))}"}
