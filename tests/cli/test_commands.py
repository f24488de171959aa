import os
import subprocess
import sys
from pathlib import Path

import pytest

from inferstack import __version__

ROOT = Path(__file__).parents[2]


def run(
    home: Path, *arguments: str, stdin: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inferstack.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "INFERSTACK_HOME": str(home), "COLUMNS": "200", **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_version_is_the_package_version(tmp_path: Path) -> None:
    assert run(tmp_path, "version").stdout == f"inferstack {__version__}\n"


def test_every_command_explains_itself(tmp_path: Path) -> None:
    text = run(tmp_path, "--help").stdout
    for name in ("up", "down", "status", "migrate", "infer", "tasks", "models", "bench", "keys"):
        assert f" {name} " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer"], "give a text, or --data"),
        (["infer", "text", "--data", "{}"], "give a text, or --data"),
        (["infer", "--data", "[1]"], "--data takes a JSON object"),
        (["infer", "--data", "@/no/such"], "cannot read /no/such"),
        (["tasks", "--cancel"], "--cancel needs the id"),
        (["migrate"], "DATABASE_URL is not set"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_api_that_does_not_answer_is_told_in_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "models", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_users_and_keys_are_managed(tmp_path: Path, clean_postgres_url: str) -> None:
    def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return run(tmp_path, *arguments, stdin=stdin, DATABASE_URL=clean_postgres_url)

    added = command("users", "add", "ada", "--password", "correct horse", "--tenant", "engines")
    assert added.stdout == "Added ada, tenant engines, role user.\n", added.stderr
    again = command("users", "add", "ada", "--password", "correct horse")
    assert again.returncode == 1
    assert "there is a user 'ada' already" in again.stderr

    key = command("keys", "add", "ada", "laptop").stdout.strip()
    assert key.startswith("is_")
    listed = command("keys", "list").stdout
    assert "laptop" in listed
    assert key not in listed
    key_id = listed.splitlines()[1].split()[0]
    assert command("keys", "revoke", key_id).stdout == "Revoked.\n"
    assert command("keys", "revoke", "nothing").returncode == 1


def test_migrate_can_be_repeated(tmp_path: Path, postgres_url: str) -> None:
    for _ in range(2):
        done = run(tmp_path, "migrate", DATABASE_URL=postgres_url)
        assert done.stdout == "The tables are up to date.\n", done.stderr
