"""Every error that inferstack raises on purpose, under one root.

Each class carries the HTTP status it becomes, the slug of its RFC 9457 problem
type, and whether the same call may succeed when it is repeated later. A class's
docstring is its default message and, in problem details, its title.
"""

import copy
from typing import Any, ClassVar, Self


class InferstackError(Exception):
    """Something went wrong inside inferstack."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    retryable: ClassVar[bool] = False
    usual_retry_after: ClassVar[float | None] = None
    """Seconds after which a repeat may succeed, where nobody knows better."""

    def __init__(
        self,
        detail: str | None = None,
        *,
        cause: str | None = None,
        task_id: str | None = None,
        retry_after: float | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        """Keeps what the problem details will say.

        Args:
            detail: what was wrong, where, and what it takes; the class's title if None.
            cause: what a library said of it. It may name hosts and users, so only logs and the
                command line show it, as a part of `str(error)`.
            task_id: the task that the error is about, where there is one.
            retry_after: seconds after which a repeat may succeed; the class's usual ones if None.
            errors: one ``{"field", "message"}`` for each wrong field of the input.
        """
        self.detail = detail or self.title()
        self.task_id = task_id
        self.retry_after = self.usual_retry_after if retry_after is None else retry_after
        self.errors = errors
        super().__init__(self.detail if cause is None else f"{self.detail}: {cause}")

    @classmethod
    def title(cls) -> str:
        """The first sentence of the class's docstring, without its full stop."""
        return (cls.__doc__ or cls.__name__).split("\n", 1)[0].rstrip(".")

    def about(self, task_id: str | None) -> Self:
        """The same error, which says the task that it is about."""
        same = copy.copy(self)
        same.task_id = task_id
        return same

    def problem(self, instance: str) -> dict[str, Any]:
        """The RFC 9457 problem details of this error.

        Args:
            instance: the path of the request that failed.
        """
        body: dict[str, Any] = {
            "type": f"https://inferstack.dev/problems/{self.slug}",
            "title": self.title(),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }
        if self.task_id is not None:
            body["task_id"] = self.task_id
        if self.retry_after is not None:
            body["retry_after"] = self.retry_after
        if self.errors:
            body["errors"] = self.errors
        return body


class ConfigurationError(InferstackError):
    """The configuration is not valid."""

    slug = "configuration"


class ModelFolderError(ConfigurationError):
    """A model folder is not valid."""

    slug = "model-folder"


class StackError(InferstackError):
    """The embedded stack cannot run."""

    slug = "stack"


class BackupError(InferstackError):
    """The backup cannot be made or restored."""

    slug = "backup"


class BadRequestError(InferstackError):
    """This is not valid HTTP."""

    status = 400
    slug = "bad-request"


class MethodNotAllowedError(InferstackError):
    """This path does not take this method."""

    status = 405
    slug = "method-not-allowed"


class RequestTimeoutError(InferstackError):
    """The request did not arrive in time."""

    status = 408
    slug = "request-timeout"
    retryable = True


class UrlTooLongError(InferstackError):
    """The URL is too long."""

    status = 414
    slug = "url-too-long"


class HeadersTooLargeError(InferstackError):
    """The header fields are too large."""

    status = 431
    slug = "headers-too-large"


class InvalidRequestError(InferstackError):
    """The request is not valid."""

    status = 422
    slug = "invalid-request"


class InvalidInputError(InvalidRequestError):
    """The model does not take this input."""

    slug = "invalid-input"


class IdempotencyMismatchError(InvalidRequestError):
    """The idempotency key was used before with another body."""

    slug = "idempotency-mismatch"


class PayloadTooLargeError(InferstackError):
    """The body is too large."""

    status = 413
    slug = "payload-too-large"


class UnsupportedMediaTypeError(InferstackError):
    """The content type is not supported."""

    status = 415
    slug = "unsupported-media-type"


class AuthenticationError(InferstackError):
    """The credentials are missing or not valid."""

    status = 401
    slug = "unauthenticated"


class NotFoundError(InferstackError):
    """There is nothing here."""

    status = 404
    slug = "not-found"


class TaskNotFoundError(NotFoundError):
    """There is no such task."""

    slug = "task-not-found"


class NotADeadLetterError(NotFoundError):
    """The task is no dead letter."""

    slug = "not-a-dead-letter"


class ModelNotFoundError(NotFoundError):
    """There is no such model or version."""

    slug = "model-not-found"


class ConflictError(InferstackError):
    """The state of the task does not allow this."""

    status = 409
    slug = "conflict"


class NotArchivedYetError(ConflictError):
    """The task failed a moment ago and is not in the list of dead letters yet."""

    slug = "not-archived-yet"
    retryable = True
    usual_retry_after = 1.0


class TenantQueueFullError(InferstackError):
    """The tenant has too many tasks waiting."""

    status = 429
    slug = "tenant-queue-full"
    retryable = True


class TemporarilyUnavailableError(InferstackError):
    """This cannot be done now, but may be later."""

    status = 503
    slug = "temporarily-unavailable"
    retryable = True


class QueueFullError(TemporarilyUnavailableError):
    """The queue of this model is full."""

    slug = "queue-full"


class CircuitOpenError(TemporarilyUnavailableError):
    """The model keeps failing, so it takes no new work for a while."""

    slug = "circuit-open"
    usual_retry_after = 5.0


class DeploymentUnavailableError(TemporarilyUnavailableError):
    """The model is known but cannot be served now."""

    slug = "deployment-unavailable"
    usual_retry_after = 5.0


class DeadlineUnreachableError(TemporarilyUnavailableError):
    """The predicted wait is longer than the timeout."""

    slug = "deadline-unreachable"


class QueueUnavailableError(TemporarilyUnavailableError):
    """The queue does not answer."""

    slug = "queue-unavailable"
    usual_retry_after = 1.0


class QueueRefusedError(ConfigurationError):
    """The queue refuses the credentials."""

    # Whoever starts ends with it; to who serves it may be a password that is being changed.
    status = 503
    slug = "queue-unavailable"
    retryable = True
    usual_retry_after = 5.0


class StorageUnavailableError(TemporarilyUnavailableError):
    """The database or the object store does not answer."""

    slug = "storage-unavailable"
    usual_retry_after = 5.0


class StorageRefusedError(StorageUnavailableError):
    """The database or the object store refuses the credentials."""


class LoginsBusyError(TemporarilyUnavailableError):
    """Too many passwords are being checked now."""

    slug = "logins-busy"
    usual_retry_after = 5.0


class ApiKeysBusyError(TemporarilyUnavailableError):
    """Too many unknown API keys are being looked up now."""

    slug = "api-keys-busy"
    usual_retry_after = 1.0


class BodiesBusyError(TemporarilyUnavailableError):
    """Too many large bodies arrive at once."""

    slug = "bodies-busy"
    usual_retry_after = 1.0


class ListsBusyError(TemporarilyUnavailableError):
    """Too many lists of tasks are being made now."""

    slug = "lists-busy"
    usual_retry_after = 5.0


class LoginUnavailableError(InferstackError):
    """This server issues no access tokens."""

    status = 503
    slug = "login-unavailable"


class EngineError(InferstackError):
    """The model failed."""

    slug = "engine-error"
    retryable = True


class ModelLoadError(EngineError):
    """The model could not be loaded."""

    slug = "model-load-failed"
    retryable = False


class OutputMismatchError(EngineError):
    """The model did not return a list with one output for each input."""

    slug = "output-mismatch"
    retryable = False


def wrong_field(field: str, message: str) -> InvalidRequestError:
    """A 422 about one field, header or parameter: what it takes, or what is wrong with it."""
    return InvalidRequestError(f"{field}: {message}", errors=[{"field": field, "message": message}])
