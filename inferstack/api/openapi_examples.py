"""The words and examples of the OpenAPI document."""

from typing import Any

DESCRIPTION = """Durable AI inference over one API.

A task that was answered 202 is on disk. It reaches exactly one terminal state: `completed`,
`failed`, `cancelled` or `expired`. Every error is RFC 9457 problem details. On a loopback address
without `AUTH_REQUIRED`, local calls need no credentials and work as the tenant `local`.
"""

TASK_ID = "01975a3c-7f2e-7c41-9d0b-3f6e5a1b2c3d"

SUBMISSIONS: dict[str, Any] = {
    "short": {"summary": "The default model", "value": {"data": {"text": "Hello, world!"}}},
    "full": {
        "summary": "Every field",
        "value": {
            "data": {"text": "Hello, world!"},
            "model": "minilm",
            "model_version": 1,
            "priority": "high",
            "timeout": 30,
            "metadata": {"order": 17},
            "reject_if_late": True,
        },
    },
}

RECEIPT: dict[str, Any] = {
    "task_id": TASK_ID,
    "status": "queued",
    "queue_position": 3,
    "estimated_wait_time": 0.05,
}

TASK: dict[str, Any] = {
    "task_id": TASK_ID,
    "status": "completed",
    "result": {"embedding": [0.0123, -0.0456, 0.0789]},
    "error": None,
    "model": "minilm",
    "model_version": 1,
    "priority": "normal",
    "attempts": 1,
    "created_at": "2026-11-23T12:00:00.000000Z",
    "started_at": "2026-11-23T12:00:00.004000Z",
    "completed_at": "2026-11-23T12:00:00.024000Z",
    "processing_time": 0.02,
    "timings": {"queue_ms": 4.0, "batch_wait_ms": 1.2, "compute_ms": 17.5},
    "batch_size": 32,
    "cost": 6.0,
    "metadata": None,
    "redrive_of": None,
}


def problem(status: int, title: str, slug: str) -> dict[str, Any]:
    """Problem details as an example."""
    found: dict[str, Any] = {
        "type": f"https://inferstack.dev/problems/{slug}",
        "title": title,
        "status": status,
        "detail": "what was wrong, where, and what it takes",
        "instance": "/api/inference",
    }
    if status == 422:
        found["errors"] = [{"field": "priority", "message": "takes high, normal or low"}]
    if status in (429, 503):
        found["retry_after"] = 2.5
    return found
