"""Dead letters in the SDK, by both clients."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from inferstack.api import dead_letter_views as views
from inferstack.api.routes.dead_letters import RedriveMany
from inferstack.client import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterPage,
    Problem,
    Purged,
    RedriveReceipt,
    dead_letters,
)
from inferstack.errors import InvalidRequestError
from inferstack.lifecycle.redrive import Changes
from inferstack.task import Priority, TaskState
from tests.client.server import Contract, problem

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (views.DeadLetterView, DeadLetter),
        (views.DeadLetterDetailView, DeadLetterDetail),
        (views.DeadLetterPageView, DeadLetterPage),
        (views.RedriveView, RedriveReceipt),
        (views.PurgeView, Purged),
    ],
)
def test_no_field_is_lost(sent: type[msgspec.Struct], read: type[msgspec.Struct]) -> None:
    names = [{field.name for field in msgspec.structs.fields(kind)} for kind in (sent, read)]
    assert names[0] == names[1]


def test_what_the_sdk_sends_is_what_the_api_reads() -> None:
    changed = dead_letters.redrive("7", {"model_version": 2, "priority": "high", "timeout": None})
    read = msgspec.json.decode(changed.body or b"", type=Changes)
    assert read == Changes(model_version=2, priority=Priority.HIGH, timeout=None)
    assert dead_letters.redrive("7", {}).body is None
    wanted = {"model": "echo", "error": None, "since": WHEN, "limit": 5}
    many = dead_letters.redrive_many(None, wanted).body or b""
    since = "2026-01-02T03:04:05Z"
    assert msgspec.json.decode(many, type=RedriveMany) == RedriveMany(
        model="echo", since=since, limit=5
    )
    named = dead_letters.redrive_many(("1",), {"model": None}).body or b""
    assert msgspec.json.decode(named, type=RedriveMany) == RedriveMany(task_ids=["1"])


def test_a_page_and_one_dead_letter_are_read_with_types(client: Any, contract: Contract) -> None:
    contract.script.append((200, {}, views.EXAMPLES["DeadLetterPageView"]))
    page = client.dead_letters(model="echo", since=WHEN, limit=5)
    assert contract.seen[-1].path == (
        "/api/dead-letters?model=echo&since=2026-01-02T03%3A04%3A05%2B00%3A00&limit=5"
    )
    (letter,) = page.dead_letters
    assert (letter.error.type, letter.priority) == ("engine-error", Priority.NORMAL)
    assert letter.failed_at > letter.created_at
    contract.script.append((200, {}, views.EXAMPLES["DeadLetterDetailView"]))
    detail = client.dead_letter(letter.task_id)
    assert (detail.input, detail.timings.compute_ms) == ({"text": "Hello, world!"}, 17.5)


def test_a_redrive_is_repeated_when_its_answer_is_lost(client: Any, contract: Contract) -> None:
    contract.script.extend(["drop", (202, {}, views.REDRIVE)])
    receipt = client.redrive(views.TASK_ID, priority="high")
    assert (receipt.redrive_of, receipt.status) == (views.TASK_ID, TaskState.QUEUED)
    assert [seen.body for seen in contract.seen] == [{"priority": "high"}] * 2


def test_many_answers_are_receipts_and_problems(client: Any, contract: Contract) -> None:
    refused = problem(404, "not-a-dead-letter", "no", task_id="7")[2]
    contract.script.append((200, {}, [views.REDRIVE, refused]))
    first, second = client.redrive_many(iter(["1", "7"]))
    assert isinstance(first, RedriveReceipt)
    assert isinstance(second, Problem)
    assert (second.status, second.kind, second.task_id) == (404, "not-a-dead-letter", "7")


def test_a_purge_of_everything_must_be_said(client: Any, contract: Contract) -> None:
    for nothing in ({}, {"limit": 5}, {"task_id": None}):
        with pytest.raises(InvalidRequestError, match="everything"):
            client.purge(**nothing)
    assert contract.seen == []
    contract.script.extend([(200, {}, {"purged": 3, "more": True})] * 3)
    assert client.purge("a/b") == Purged(3, True)
    assert client.purge(model="echo", limit=5) == Purged(3, True)
    assert client.purge(everything=True) == Purged(3, True)
    assert [(seen.method, seen.path) for seen in contract.seen] == [
        ("DELETE", "/api/dead-letters/a%2Fb"),
        ("DELETE", "/api/dead-letters?model=echo&limit=5"),
        ("DELETE", "/api/dead-letters?everything=true"),
    ]
