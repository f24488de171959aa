import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from inferstack import __version__
from tests.cli.command import ROOT, run


def test_version_is_the_package_version(tmp_path: Path) -> None:
    for asked in ("version", "--version"):
        assert run(tmp_path, asked).stdout == f"inferstack {__version__}\n"


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
        (["migrate"], "DATABASE_URL is not set. No stack has run in"),
        (["keys", "list"], "change to the folder that holds its"),
        (["infer", "hi", "--url", "http://[::1"], "is not a URL"),
        (["infer", "hi", "--url", ""], "'' is not a URL"),
        (["bench", "--url", "http://localhost:99999"], "is not a URL"),
        (["bench", "--url", "http://10.0.0.1"], "--allow-remote"),
        (["bench", "--scenario", "load", "--url", "http://10.0.0.1"], "--allow-remote"),
        (["bench", "--scenario", "load", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["bench", "--scenario", "load", "--payload", "[1]"], "--payload takes a JSON object"),
        (["keys", "revoke", ""], "at least its first 4 characters"),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    env = {"DATABASE_URL": "postgresql://nowhere"} if "revoke" in arguments else {}
    done = run(tmp_path, *arguments, **env)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_token_that_no_header_takes_is_told_in_one_line_without_it(tmp_path: Path) -> None:
    for command in (["infer", "hi"], ["bench", "--duration", "0.1"]):
        done = run(tmp_path, *command, INFERSTACK_TOKEN="s3cr\u00e9t")
        assert done.returncode == 1
        assert "not ASCII" in done.stderr
        assert "s3cr" not in done.stderr


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

    made = command("keys", "add", "ada", "[/x]")
    key = made.stdout.strip()
    assert key.startswith("is_")
    listed = command("keys", "list").stdout
    assert "[/x]" in listed
    assert key not in listed
    key_id = listed.splitlines()[1].split()[0]
    assert key_id in made.stderr
    (known,) = json.loads(command("keys", "list", "--json").stdout)
    assert (known["id"], known["name"], known["username"]) == (key_id, "[/x]", "ada")
    assert command("keys", "revoke", key_id[:8]).stdout == f"Revoked [/x] of ada, {key_id}.\n"
    assert command("keys", "revoke", "nothing").returncode == 1

    changed = command("users", "password", "ada", stdin="another one\nanother one\n")
    assert "Changed." in changed.stdout, changed.stderr
    assert [u["username"] for u in json.loads(command("users", "list", "--json").stdout)] == ["ada"]
    assert command("users", "remove", "ada").stdout == "Removed ada.\n"
    assert "ada" not in command("users", "list").stdout + command("keys", "list").stdout


def test_an_id_with_too_few_characters_to_be_one_key_revokes_none(
    tmp_path: Path, clean_postgres_url: str
) -> None:
    with psycopg.connect(clean_postgres_url, autocommit=True) as database:
        user = "00000000-0000-4000-8000-000000000000"
        database.execute(f"INSERT INTO users VALUES ('{user}', 'ada', '!', 'ada', 'user')".encode())
        for end in ("1", "2"):
            values = f"'01234567-0000-4000-8000-00000000000{end}', '{user}', 'k', '{end}', 'is_'"
            database.execute(f"INSERT INTO api_keys VALUES ({values})".encode())
    done = run(tmp_path, "keys", "revoke", "0123456", DATABASE_URL=clean_postgres_url)
    assert "2 ids start with 0123456" in done.stderr
    assert "0123456" in run(tmp_path, "keys", "list", DATABASE_URL=clean_postgres_url).stdout
    keys = run(tmp_path, "keys", "list", "--json", DATABASE_URL=clean_postgres_url).stdout
    assert [key["revoked_at"] for key in json.loads(keys)] == [None, None]


def test_the_administrator_of_the_settings_is_changed_in_the_settings(tmp_path: Path) -> None:
    env = {"DATABASE_URL": "postgresql://nowhere", "ADMIN_PASSWORD": "correct horse"}
    for command in (["password", "admin", "--password", "another one"], ["remove", "admin"]):
        done = run(tmp_path, "users", *command, **env)
        assert done.returncode == 1
        assert "set ADMIN_" in done.stderr


def test_migrate_can_be_repeated(tmp_path: Path, postgres_url: str) -> None:
    for _ in range(2):
        done = run(tmp_path, "migrate", DATABASE_URL=postgres_url)
        assert done.stdout == "The tables are up to date.\n", done.stderr


@pytest.mark.parametrize("arguments", [["status", "--json"], ["status"], ["version"], ["--help"]])
def test_who_has_read_enough_is_told_nothing(tmp_path: Path, arguments: list[str]) -> None:
    """As behind `| head -1`: nobody reads what the command prints."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "inferstack.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, "INFERSTACK_HOME": str(tmp_path), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode in (0, 1)
