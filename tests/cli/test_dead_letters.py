"""`inferstack dead-letters` against a server that answers as the API does."""

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Protocol

import pytest

from inferstack.api import dead_letter_views as views
from tests.cli.command import run
from tests.client.server import Contract, Server, problem

ID = views.TASK_ID
MARKUP = {"type": "engine-error", "message": "[red]no[/red] \x1b[2J\nnext"}


class Command(Protocol):
    def __call__(self, *arguments: str, **env: str) -> CompletedProcess[str]: ...


@pytest.fixture
def command(server: Server, tmp_path: Path) -> Command:
    def call(*arguments: str, **env: str) -> CompletedProcess[str]:
        return run(tmp_path, "dead-letters", *arguments, **({"INFERSTACK_URL": server.url} | env))

    return call


def page(cursor: str | None, **fields: Any) -> tuple[int, dict[str, str], Any]:
    return 200, {}, {"dead_letters": [views.LETTER | fields], "next_cursor": cursor}


def test_the_list_shows_whole_ids_and_obeys_no_message(
    command: Command, contract: Contract
) -> None:
    for width in ("40", "200"):
        contract.script.append(page("more", error=MARKUP))
        done = command("list", "--model", "minilm", COLUMNS=width)
        assert done.returncode == 0, done.stderr
        assert ID in done.stdout
        assert "\x1b" not in done.stdout
    assert "[red]no[/red]" in done.stdout
    assert len(contract.seen) == 2


def test_all_pages_are_listed(command: Command, contract: Contract) -> None:
    contract.script.extend([page("c1"), page(None, task_id=views.NEW_ID)])
    done = command("list", "--all", "--json")
    assert ID in done.stdout
    assert views.NEW_ID in done.stdout
    assert "cursor=c1" in contract.seen[1].path


def test_one_is_shown_in_full(command: Command, contract: Contract) -> None:
    contract.script.append((200, {}, views.DETAIL))
    assert '"input_bytes": 24' in command("show", ID).stdout


def test_named_ones_are_redriven_and_a_refusal_is_told(
    command: Command, contract: Contract
) -> None:
    refused = problem(404, "not-a-dead-letter", "it is completed", task_id="7")[2]
    contract.script.append((200, {}, [views.REDRIVE, refused]))
    done = command("redrive", ID, "7")
    assert done.stdout == f"{ID} -> {views.NEW_ID}\n"
    assert "7: 404 not-a-dead-letter: it is completed" in done.stderr
    assert done.returncode == 1
    assert contract.seen[0].body == {"task_ids": [ID, "7"]}


def test_all_are_redriven_by_a_filter(command: Command, contract: Contract) -> None:
    contract.script.extend([page(None), (200, {}, [views.REDRIVE])])
    assert command("redrive", "--all", "--model", "minilm").returncode == 0
    assert "model=minilm" in contract.seen[0].path
    assert contract.seen[1].body == {"task_ids": [ID]}


def test_all_pages_are_redriven_each_once_though_the_oldest_are_refused(
    command: Command, contract: Contract
) -> None:
    refused = problem(409, "conflict", "its input was not kept", task_id="0")[2]
    ids = [str(number) for number in range(1200, 0, -1)]
    for first in range(0, 1200, 200):
        letters = [views.LETTER | {"task_id": each} for each in ids[first : first + 200]]
        cursor = ids[first + 199] if first < 1000 else None
        contract.script.append((200, {}, {"dead_letters": letters, "next_cursor": cursor}))
    contract.script.extend([(200, {}, [refused] * 1000), (200, {}, [views.REDRIVE] * 200)])
    done = command("redrive", "--all")
    assert done.returncode == 1
    assert [seen.body for seen in contract.seen[6:]] == [
        {"task_ids": ids[:-1001:-1]},
        {"task_ids": ids[199::-1]},
    ]
    assert done.stdout.count("->") == 200


def test_a_purge_asks_first_and_goes_on_while_there_is_more(
    command: Command, contract: Contract
) -> None:
    refused = command("purge", "--all")
    assert refused.returncode == 1
    assert "for good?" in refused.stdout + refused.stderr
    assert contract.seen == []
    contract.script.extend([(200, {}, {"purged": 1000, "more": True}), (200, {}, {"purged": 3})])
    assert command("purge", "--all", "--yes").stdout == "Removed 1003.\n"
    contract.script.append((200, {}, {"purged": 1}))
    assert command("purge", ID, "--yes").stdout == "Removed 1.\n"
    assert contract.seen[-1].path == f"/api/dead-letters/{ID}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["redrive"], "give the ids of tasks, or --all"),
        (["redrive", ID, "--all"], "give the ids of tasks, or --all"),
        (["purge", "--model", "minilm"], "give the ids of tasks, or --all"),
        (["purge", ID, "--model", "minilm"], "filters go with --all"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    command: Command, arguments: list[str], message: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
