"""What the client raises. All of it is an `InferstackError`."""

from typing import Any

from inferstack.client.types import Task
from inferstack.errors import InferstackError


class ClientError(InferstackError):
    """The call did not succeed."""


class InvalidArgumentError(ClientError, ValueError):
    """An argument cannot be sent."""


class Problem(ClientError):
    """The API refused a request."""

    status: int  # type: ignore[misc]  # a class variable on the server's side of the wire

    def __init__(
        self, status: int, *, type: str = "about:blank", title: str | None = None, **rest: Any
    ) -> None:
        """Keeps the RFC 9457 problem details that came back.

        Args:
            status: HTTP status.
            type: URI of the problem type; `about:blank` if the answer held no problem details.
            title: what kind of problem it is.
            rest: see `InferstackError`.
        """
        super().__init__(rest.pop("detail", None) or title or f"HTTP {status}", **rest)
        self.status = status
        self.type = type

    @property
    def kind(self) -> str:
        """The last part of `type`, such as `queue-full`."""
        return self.type.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        """One line with everything the caller can act on."""
        fields = "; ".join(text for text in map(self._field, self.errors or ()) if text)
        return f"{self.status} {self.kind}: {self.detail}" + (f" ({fields})" if fields else "")

    def _field(self, error: dict[str, str]) -> str:
        """What the detail does not say yet about a wrong field."""
        field, message = error.get("field", ""), error.get("message", "")
        said = field in self.detail and message in self.detail
        return "" if said else f"{field}: {message}"


class UnreachableError(ClientError):
    """The API did not answer."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        """Says what happened.

        Args:
            detail: what was tried and how it failed.
            sent: whether the request may have reached the API.
        """
        super().__init__(detail)
        self.sent = sent


class UnexpectedAnswerError(ClientError):
    """The answer is not what the API's contract says."""


class WaitTimeoutError(ClientError):
    """The task did not finish in the time given; it lives on."""


class TaskNotCompletedError(ClientError):
    """The task ended without a result."""

    def __init__(self, task: Task) -> None:
        """Keeps the task.

        Args:
            task: it is failed, cancelled or expired.
        """
        reason = f": {task.error.message}" if task.error else ""
        super().__init__(f"{task.status}{reason} (task {task.task_id})", task_id=task.task_id)
        self.task = task
