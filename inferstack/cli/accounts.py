"""`inferstack users` and `inferstack keys`: who may call."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from inferstack import config
from inferstack.cli.output import answers
from inferstack.local.control import known_settings
from inferstack.local.home import Home

if TYPE_CHECKING:
    from inferstack.storage.accounts import Accounts

T = TypeVar("T")

users = typer.Typer(help="Users and their passwords.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)


@users.command("add")
def add_user(
    username: str,
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)],
    tenant: Annotated[str | None, typer.Option(help="The username if left out.")] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May see and do everything.")] = False,
) -> None:
    """Adds a user; asks for the password."""
    role = "admin" if admin else "user"
    user = _with_accounts(lambda a: a.create_user(username, password, tenant=tenant, role=role))
    answers.print(f"Added {user.username}, tenant {user.tenant}, role {user.role}.", markup=False)


@keys.command("add")
def add_key(username: str, name: Annotated[str, typer.Argument(help="What it is for.")]) -> None:
    """Makes an API key and prints it; it cannot be shown again."""
    _, plaintext = _with_accounts(lambda a: a.create_api_key(username, name))
    answers.print(plaintext, markup=False, highlight=False, soft_wrap=True)


@keys.command("list")
def list_keys(
    username: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
) -> None:
    """Lists API keys, newest first."""
    table = Table("id", "name", "key", "user", "tenant", "created", "revoked", box=None)
    for key in _with_accounts(lambda a: a.api_keys(username)):
        times = (_time(key.created_at), _time(key.revoked_at))
        table.add_row(key.id, key.name, f"{key.prefix}...", key.username, key.tenant, *times)
    answers.print(table)


@keys.command("revoke")
def revoke_key(key_id: str) -> None:
    """Ends an API key for good."""
    _with_accounts(lambda a: a.revoke_api_key(key_id))
    answers.print("Revoked.")


def _with_accounts(use: "Callable[[Accounts], Awaitable[T]]") -> T:
    # Imported by these commands alone: SQLAlchemy takes longer to import than `status` to run.
    from inferstack.storage.accounts import Accounts
    from inferstack.storage.database import Database

    wanted = config.settings()
    database = Database.from_settings(known_settings(Home(wanted.inferstack_home), wanted))

    async def run() -> T:
        try:
            return await use(Accounts(database))
        finally:
            await database.close()

    return asyncio.run(run())


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
