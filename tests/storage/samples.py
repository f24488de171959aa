"""Tasks to store, as a replica and Redis would have made them."""

from typing import Any

import msgspec

from inferstack.task import Execution, Task, TaskSpec, TaskState, new_task_id

NOW = 1_790_000_000.123456


def queued(model: str = "echo", version: int = 1, tenant: str = "acme", **spec: Any) -> Task:
    """A task that waits, created just now by a fixed clock."""
    values: dict[str, Any] = {"task_id": new_task_id(f"{model}:{version}"), "data": {"text": "hi"}}
    values |= {"model": model, "model_version": version, "tenant": tenant} | spec
    return Task(
        spec=TaskSpec(**values), state=TaskState.QUEUED, version=1, created_at=NOW, attempts=0
    )


def completed(task: Task | None = None, result: bytes | None = b'{"x":1}', **values: Any) -> Task:
    """The same task, done."""
    return msgspec.structs.replace(
        task or queued(),
        **{
            "state": TaskState.COMPLETED,
            "version": 3,
            "attempts": 1,
            "started_at": NOW + 0.25,
            "completed_at": NOW + 1.5,
            "execution": Execution("host:1:a", 1.25, 2.5, 32),
            "result": None if result is None else msgspec.Raw(result),
        }
        | values,
    )
