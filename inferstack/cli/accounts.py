"""`inferstack users` and `inferstack keys`: who may call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table

from inferstack.cli import place
from inferstack.cli.output import WIDE, answers, as_json, errors, table
from inferstack.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from inferstack.storage.accounts import Accounts, ApiKey

T = TypeVar("T")

MIN_PREFIX = 4
"""Characters of an id: an empty variable must not revoke the only key there is."""

users = typer.Typer(help="Users and their passwords.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)

Password = Annotated[
    str,
    typer.Option(
        prompt=True,
        hide_input=True,
        confirmation_prompt=True,
        help="8 to 1024 characters; asked for if left out.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


@users.command("add")
def add_user(
    username: Annotated[str, typer.Argument(help="What they log in as.")],
    password: Password,
    tenant: Annotated[
        str | None, typer.Option(help="Who their work is done for; the username if left out.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="May see and do everything.")] = False,
) -> None:
    """Adds a user; asks for the password."""
    role = "admin" if admin else "user"
    user = _with_accounts(lambda a: a.create_user(username, password, tenant=tenant, role=role))
    answers.print(f"Added {user.username}, tenant {user.tenant}, role {user.role}.")


@users.command("list")
def list_users(json: Json = False) -> None:
    """Lists users by name."""
    found = _with_accounts(lambda a: a.users())
    if json:
        as_json(found)
        return
    shown = table("role", folded=("user", "tenant"))
    for user in found:
        shown.add_row(user.role, user.username, user.tenant)
    answers.print(shown)


@users.command("password")
def change_password(
    username: Annotated[str, typer.Argument(help="Whose it is.")], password: Password
) -> None:
    """Changes a password; asks for it. Access tokens stay valid until they expire."""
    _refuse_administrator(username, "change its password: set ADMIN_PASSWORD and start again")
    _with_accounts(lambda a: a.change_password(username, password))
    answers.print("Changed.")


@users.command("remove")
def remove_user(username: Annotated[str, typer.Argument(help="Who.")]) -> None:
    """Removes a user with all their keys; tasks stay.

    Keys are refused within 10 seconds; access tokens stay valid until they expire.
    """
    _refuse_administrator(username, "remove it: set ADMIN_USERNAME to another user first")
    _with_accounts(lambda a: a.remove_user(username))
    answers.print(f"Removed {username}.")


@keys.command("add")
def add_key(
    username: Annotated[str, typer.Argument(help="The user that it speaks for.")],
    name: Annotated[str, typer.Argument(help="What it is for.")],
) -> None:
    """Makes an API key and prints it; it cannot be shown again."""
    key, plaintext = _with_accounts(lambda a: a.create_api_key(username, name))
    errors.print(f"Its id is {key.id}. The key is not shown again:")
    answers.print(plaintext, soft_wrap=True)


@keys.command("list")
def list_keys(
    username: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    json: Json = False,
) -> None:
    """Lists API keys, newest first."""
    found = _with_accounts(lambda a: a.api_keys(username))
    if json:
        as_json(found)
        return
    answers.print(key_table(found, wide=answers.width >= WIDE))


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Its id, or enough of its first characters.")],
) -> None:
    """Ends an API key for good."""
    key = _with_accounts(lambda a: _revoke(a, key_id))
    answers.print(f"Revoked {key.name} of {key.username}, {key.id}.", soft_wrap=True)


def key_table(found: "Sequence[ApiKey]", *, wide: bool) -> Table:
    """Keys with whole ids.

    Args:
        found: the keys.
        wide: whether there is room for the time of creation and the tenant.
    """
    more = ("created",) if wide else ()
    folded = ("name", "user", *(("tenant",) if wide else ()))
    shown = table("id", "key", *more, "revoked", folded=folded)
    for key in found:
        times = (_day(key.created_at),) if wide else ()
        names = (key.name, key.username, *((key.tenant,) if wide else ()))
        shown.add_row(key.id, key.prefix, *times, _day(key.revoked_at), *names)
    return shown


async def _revoke(accounts: "Accounts", start: str) -> "ApiKey":
    """Revokes the one key whose id starts so."""
    if len(start) < MIN_PREFIX:
        raise InvalidRequestError(f"give the id, or at least its first {MIN_PREFIX} characters")
    found = [key for key in await accounts.api_keys() if key.id.startswith(start)]
    if not found:
        raise NotFoundError(f"there is no API key whose id starts with {start}")
    if len(found) > 1:
        raise InvalidRequestError(f"{len(found)} ids start with {start}: give more of it")
    await accounts.revoke_api_key(found[0].id)
    return found[0]


def _refuse_administrator(username: str, what: str) -> None:
    # The API makes this account anew, with its password, at each start.
    settings = place.with_database()
    if settings.admin_password is not None and username == settings.admin_username:
        raise InvalidRequestError(f"{username} is the administrator of the settings; to {what}")


def _with_accounts(use: "Callable[[Accounts], Awaitable[T]]") -> T:
    # Imported by these commands alone: SQLAlchemy takes longer to import than `status` to run.
    from inferstack.storage.accounts import Accounts
    from inferstack.storage.database import Database

    database = Database.from_settings(place.with_database())

    async def run() -> T:
        try:
            return await use(Accounts(database))
        finally:
            await database.close()

    return asyncio.run(run())


def _day(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
