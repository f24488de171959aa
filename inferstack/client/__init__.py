"""Python SDK: `Client` and `AsyncClient` for the HTTP API."""

from inferstack.client.asynchronous import AsyncClient
from inferstack.client.blocking import Client
from inferstack.client.dead_letters import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterPage,
    Purged,
    RedriveReceipt,
)
from inferstack.client.errors import (
    ClientError,
    InvalidArgumentError,
    Problem,
    TaskNotCompletedError,
    UnexpectedAnswerError,
    UnreachableError,
    WaitTimeoutError,
)
from inferstack.client.options import Retries, Timeouts
from inferstack.client.types import Model, Receipt, Submission, Task, TaskPage, Timings, Token

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "DeadLetter",
    "DeadLetterDetail",
    "DeadLetterPage",
    "InvalidArgumentError",
    "Model",
    "Problem",
    "Purged",
    "Receipt",
    "RedriveReceipt",
    "Retries",
    "Submission",
    "Task",
    "TaskNotCompletedError",
    "TaskPage",
    "Timeouts",
    "Timings",
    "Token",
    "UnexpectedAnswerError",
    "UnreachableError",
    "WaitTimeoutError",
]
