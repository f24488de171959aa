import asyncio
import time

import psycopg
import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from inferstack.errors import ConflictError, InvalidRequestError, NotFoundError
from inferstack.storage import passwords
from inferstack.storage.accounts import Accounts
from inferstack.storage.database import Database

PASSWORD = "correct horse battery"


@pytest.fixture
def accounts(database: Database, monkeypatch: pytest.MonkeyPatch) -> Accounts:
    """Their passwords cost next to nothing."""
    cheap = PasswordHasher.from_parameters(CHEAPEST)
    monkeypatch.setattr(passwords, "_hasher", cheap)
    monkeypatch.setattr(passwords, "_decoy", cheap.hash(""))
    return Accounts(database)


async def test_the_right_password_gives_the_user(accounts: Accounts) -> None:
    created = await accounts.create_user("ann", PASSWORD, tenant="acme")
    assert await accounts.verify_password("ann", PASSWORD) == created
    assert (created.tenant, created.role) == ("acme", "user")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("ann", "x" * 2000),
        ("ann", "\ud800"),
        ("bob", PASSWORD),
        ("Ann", PASSWORD),
        ("", ""),
        ("a\0", PASSWORD),
        ("x" * 5000, PASSWORD),
    ],
)
async def test_anything_else_gives_nobody(accounts: Accounts, name: str, password: str) -> None:
    await accounts.create_user("ann", PASSWORD)
    assert await accounts.verify_password(name, password) is None


async def test_a_tenant_of_their_own_is_the_default(accounts: Accounts) -> None:
    assert (await accounts.create_user("ann", PASSWORD)).tenant == "ann"


async def test_passwords_are_kept_as_argon2id(database: Database, clean_postgres_url: str) -> None:
    await Accounts(database).create_user("ann", PASSWORD)
    with psycopg.connect(clean_postgres_url) as connection:
        row = connection.execute("SELECT password_hash, users::text FROM users").fetchone()
    assert row is not None
    assert row[0].startswith("$argon2id$")
    assert PASSWORD not in row[1]


async def test_an_unknown_name_takes_as_long_as_a_wrong_password(database: Database) -> None:
    accounts = Accounts(database)
    await accounts.create_user("ann", PASSWORD)

    # In turn, so that whatever else runs here slows both.
    times: dict[str, list[float]] = {"ann": [], "nobody": []}
    for _ in range(7):
        for name, taken in times.items():
            begun = time.perf_counter()
            await accounts.verify_password(name, "wrong password")
            taken.append(time.perf_counter() - begun)
    known, unknown = map(min, times.values())
    assert 0.5 < known / unknown < 2.0


async def test_a_username_exists_once(accounts: Accounts) -> None:
    results = await asyncio.gather(
        *(accounts.create_user("ann", PASSWORD) for _ in range(3)), return_exceptions=True
    )
    assert sum(isinstance(result, ConflictError) for result in results) == 2


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("username", {"username": ""}),
        ("username", {"username": "a\0"}),
        ("username", {"username": " ann"}),
        ("username", {"username": "x" * 129}),
        ("password", {"password": "short"}),
        ("password", {"password": "x" * 1025}),
        ("tenant", {"tenant": ""}),
        ("role", {"role": "root"}),
    ],
)
async def test_a_wrong_value_is_refused_by_field(
    accounts: Accounts, field: str, values: dict[str, str]
) -> None:
    arguments = {"username": "ann", "password": PASSWORD} | values
    with pytest.raises(InvalidRequestError) as raised:
        await accounts.create_user(
            arguments.pop("username"),
            arguments.pop("password"),
            **arguments,
        )
    assert raised.value.errors is not None
    assert raised.value.errors[0]["field"] == field


async def test_processes_that_start_at_once_make_one_admin(accounts: Accounts) -> None:
    users = await asyncio.gather(*(accounts.ensure_admin("admin", PASSWORD) for _ in range(4)))
    assert len({user.id for user in users}) == 1
    assert users[0].role == "admin"


async def test_a_new_admin_password_replaces_the_old(accounts: Accounts) -> None:
    first = await accounts.ensure_admin("admin", PASSWORD)
    assert await accounts.ensure_admin("admin", PASSWORD) == first
    await accounts.ensure_admin("admin", "another password")
    assert await accounts.verify_password("admin", PASSWORD) is None
    assert await accounts.verify_password("admin", "another password") == first


async def test_a_key_opens_its_owners_door(accounts: Accounts) -> None:
    await accounts.create_user("ann", PASSWORD, tenant="acme", role="admin")
    created, plaintext = await accounts.create_api_key("ann", "laptop")
    assert plaintext.startswith("is_")
    assert len(plaintext) > 40
    assert await accounts.api_key(plaintext) == created
    assert (created.tenant, created.role, created.username) == ("acme", "admin", "ann")


@pytest.mark.parametrize(
    "key", ["", "is_", "is_wrong", "is_\ud800", "is_\0", "Bearer x", "x" * 9999]
)
async def test_another_key_opens_nothing(accounts: Accounts, key: str) -> None:
    assert await accounts.api_key(key) is None


async def test_no_key_is_stored_in_plain(accounts: Accounts, clean_postgres_url: str) -> None:
    await accounts.create_user("ann", PASSWORD)
    _, plaintext = await accounts.create_api_key("ann", "laptop")
    with psycopg.connect(clean_postgres_url) as connection:
        row = connection.execute("SELECT api_keys::text, digest FROM api_keys").fetchone()
    assert row is not None
    assert plaintext not in row[0]
    assert len(row[1]) == 32


async def test_a_revoked_key_opens_nothing_and_stays_listed(accounts: Accounts) -> None:
    await accounts.create_user("ann", PASSWORD)
    key, plaintext = await accounts.create_api_key("ann", "laptop")
    await accounts.revoke_api_key(key.id, "ann")
    await accounts.revoke_api_key(key.id)
    assert await accounts.api_key(plaintext) is None
    (listed,) = await accounts.api_keys("ann")
    assert listed.revoked_at is not None


async def test_nobody_revokes_or_lists_the_keys_of_others(accounts: Accounts) -> None:
    await accounts.create_user("ann", PASSWORD)
    await accounts.create_user("bob", PASSWORD)
    key, plaintext = await accounts.create_api_key("ann", "laptop")
    with pytest.raises(NotFoundError):
        await accounts.revoke_api_key(key.id, "bob")
    assert await accounts.api_keys("bob") == []
    assert len(await accounts.api_keys()) == 1
    assert await accounts.api_key(plaintext) is not None


async def test_a_key_needs_an_owner_and_a_name(accounts: Accounts) -> None:
    with pytest.raises(NotFoundError):
        await accounts.create_api_key("nobody", "laptop")
    with pytest.raises(InvalidRequestError):
        await accounts.create_api_key("nobody", "")


async def test_users_are_listed_by_name(accounts: Accounts) -> None:
    bob = await accounts.create_user("bob", PASSWORD)
    ann = await accounts.create_user("ann", PASSWORD, tenant="acme", role="admin")
    assert await accounts.users() == [ann, bob]


async def test_a_changed_password_replaces_the_old(accounts: Accounts) -> None:
    ann = await accounts.create_user("ann", PASSWORD)
    await accounts.change_password("ann", "another password")
    assert await accounts.verify_password("ann", PASSWORD) is None
    assert await accounts.verify_password("ann", "another password") == ann
    with pytest.raises(InvalidRequestError):
        await accounts.change_password("ann", "short")
    with pytest.raises(NotFoundError):
        await accounts.change_password("nobody", PASSWORD)


async def test_a_removed_user_and_their_keys_open_nothing(accounts: Accounts) -> None:
    await accounts.create_user("ann", PASSWORD)
    await accounts.create_user("bob", PASSWORD)
    _, of_ann = await accounts.create_api_key("ann", "laptop")
    _, of_bob = await accounts.create_api_key("bob", "laptop")
    await accounts.remove_user("ann")
    assert await accounts.verify_password("ann", PASSWORD) is None
    assert await accounts.api_key(of_ann) is None
    assert await accounts.api_key(of_bob) is not None
    assert [user.username for user in await accounts.users()] == ["bob"]
    with pytest.raises(NotFoundError):
        await accounts.remove_user("ann")


async def test_a_user_has_a_bounded_number_of_keys(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.storage.accounts.MAX_KEYS", 2)
    await accounts.create_user("ann", PASSWORD)
    await accounts.create_user("bob", PASSWORD)
    await accounts.create_api_key("bob", "laptop")
    made = await asyncio.gather(
        *(accounts.create_api_key("ann", "job") for _ in range(6)), return_exceptions=True
    )
    keys = [each[0] for each in made if not isinstance(each, BaseException)]
    assert len(keys) == 2
    assert sum(isinstance(each, ConflictError) for each in made) == 4
    await accounts.revoke_api_key(keys[0].id, "ann")
    await accounts.create_api_key("ann", "job")


async def test_a_bounded_list_leaves_revoked_keys_out_first(accounts: Accounts) -> None:
    await accounts.create_user("ann", PASSWORD)
    keys = [(await accounts.create_api_key("ann", "job"))[0] for _ in range(3)]
    await accounts.revoke_api_key(keys[2].id)
    assert [key.id for key in await accounts.api_keys("ann", 2)] == [keys[1].id, keys[0].id]


@pytest.mark.parametrize("key_id", ["", "x", "a674796f-c3b7-4d2b-b03e-de802f60e891"])
async def test_a_key_that_is_not_there_is_not_revoked(accounts: Accounts, key_id: str) -> None:
    with pytest.raises(NotFoundError):
        await accounts.revoke_api_key(key_id)
