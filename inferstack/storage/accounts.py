"""Users and their API keys."""

import hashlib
import secrets
from typing import Any
from uuid import UUID, uuid4

import msgspec
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from inferstack.errors import ConflictError, NotFoundError, wrong_field
from inferstack.storage.database import Database
from inferstack.storage.history import as_uuid
from inferstack.storage.passwords import Passwords
from inferstack.storage.tables import api_keys, users

KEY_PREFIX = "is_"
ROLES = frozenset({"user", "admin"})
MIN_PASSWORD = 8
MAX_PASSWORD = 1024
MAX_NAME = 128
MAX_KEYS = 100
"""API keys that a user may have, without those that are revoked."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may log in."""

    id: str
    username: str
    tenant: str
    """Who the work is done for."""
    role: str
    """`user` or `admin`."""


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a key; the key itself was shown once and is not stored."""

    id: str
    name: str
    prefix: str
    """Its first characters."""
    username: str
    tenant: str
    role: str
    created_at: float
    """Seconds since the epoch; so is the other."""
    revoked_at: float | None


class Accounts:
    """Who may call."""

    def __init__(self, database: Database) -> None:
        """Args: database: a migrated database."""
        self._database = database
        self._passwords = Passwords()

    async def create_user(
        self, username: str, password: str, *, tenant: str | None = None, role: str = "user"
    ) -> User:
        """Adds a user.

        Args:
            username: unique, 1 to 128 characters.
            password: 8 to 1024 characters.
            tenant: who the work is done for; a tenant of the same name as the user if None.
            role: `user` or `admin`.

        Raises:
            InvalidRequestError: a value is not allowed; names the field.
            ConflictError: the username is taken.
        """
        tenant = username if tenant is None else tenant
        check_account(username, password, tenant, role)
        row = {"id": uuid4(), "username": username, "tenant": tenant, "role": role}
        row["password_hash"] = await self._passwords.hash(password)
        query = insert(users).values(row).on_conflict_do_nothing(index_elements=["username"])
        async with self._database.transaction() as connection:
            added = (await connection.execute(query.returning(users.c.id))).one_or_none()
        if added is None:
            raise ConflictError(f"there is a user '{username}' already")
        return User(id=str(added.id), username=username, tenant=tenant, role=role)

    async def ensure_admin(self, username: str, password: str) -> User:
        """Makes the administrator, or gives the one there is this password and role.

        Safe to call from several processes at once, at every start.
        """
        check_account(username, password, username, "admin")
        known = await self._row(username)
        hashed = known.password_hash if known is not None and known.role == "admin" else None
        if hashed and await self._passwords.matches(hashed, password):
            return _user(known)
        row: dict[str, Any] = {"role": "admin"}
        row["password_hash"] = await self._passwords.hash(password)
        query = insert(users).values(id=uuid4(), username=username, tenant=username, **row)
        query = query.on_conflict_do_update(index_elements=["username"], set_=row)
        async with self._database.transaction() as connection:
            return _user((await connection.execute(query.returning(users))).one())

    async def verify_password(self, username: str, password: str) -> User | None:
        """The user, or None; takes as long for an unknown name as for a wrong password.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        if len(password) > MAX_PASSWORD:
            return None
        row = None if _unstorable(username) else await self._row(username)
        known = None if row is None else str(row.password_hash)
        if not await self._passwords.matches(known, password) or row is None or known is None:
            return None
        if self._passwords.outdated(known):
            await self._set_hash(row.id, await self._passwords.hash(password))
        return _user(row)

    async def users(self) -> list[User]:
        """Every user, by name."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(select(users).order_by(users.c.username))
            return [_user(row) for row in rows.all()]

    async def change_password(self, username: str, password: str) -> None:
        """Gives a user another password; access tokens stay valid until they expire.

        Raises:
            InvalidRequestError: the password is too short or too long.
            NotFoundError: there is no such user.
        """
        _check_password(password)
        await self._set_hash((await self._known(username)).id, await self._passwords.hash(password))

    async def remove_user(self, username: str) -> None:
        """Removes a user and all their keys; their tasks and their tenant's history stay.

        An access token that they hold stays valid until it expires.

        Raises:
            NotFoundError: there is no such user.
        """
        query = delete(users).where(users.c.id == (await self._known(username)).id)
        async with self._database.transaction() as connection:
            await connection.execute(query)

    async def create_api_key(self, username: str, name: str) -> tuple[ApiKey, str]:
        """Makes a key and returns it with its only plaintext, `is_...`.

        Args:
            username: whose key it is.
            name: what its owner calls it, 1 to 128 characters.

        Raises:
            InvalidRequestError: the name is empty or too long.
            NotFoundError: there is no such user.
            ConflictError: the user has MAX_KEYS that are not revoked.
        """
        _check_name("name", name)
        owner = await self._known(username)
        plaintext = KEY_PREFIX + secrets.token_urlsafe(32)
        row = {"id": uuid4(), "user_id": owner.id, "name": name, "digest": _digest(plaintext)}
        row["prefix"] = plaintext[: len(KEY_PREFIX) + 6]
        query = insert(api_keys).values(row).returning(api_keys.c.created_at)
        async with self._database.transaction() as connection:
            await _require_room(connection, owner)
            created = (await connection.execute(query)).scalar_one()
        key = ApiKey(
            id=str(row["id"]),
            name=name,
            prefix=str(row["prefix"]),
            username=owner.username,
            tenant=owner.tenant,
            role=owner.role,
            created_at=created.timestamp(),
            revoked_at=None,
        )
        return key, plaintext

    async def api_key(self, plaintext: str) -> ApiKey | None:
        """The key, or None if it is unknown or revoked.

        Raises:
            StorageUnavailableError: PostgreSQL does not answer.
        """
        if not plaintext.startswith(KEY_PREFIX):
            return None
        query = _keys().where(
            api_keys.c.digest == _digest(plaintext), api_keys.c.revoked_at.is_(None)
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _key(row)

    async def api_keys(self, username: str | None = None, limit: int | None = None) -> list[ApiKey]:
        """The keys of one user or of all, revoked ones too, newest first.

        Args:
            username: whose; None for everybody's.
            limit: at most so many; what is left out first are revoked ones. None for no limit.
        """
        newest = (api_keys.c.created_at.desc(), api_keys.c.id)
        query = _keys().order_by(api_keys.c.revoked_at.is_not(None), *newest).limit(limit)
        if username is not None:
            query = query.where(users.c.username == username)
        async with self._database.transaction() as connection:
            found = [_key(row) for row in (await connection.execute(query)).all()]
        return sorted(found, key=lambda key: key.created_at, reverse=True)

    async def revoke_api_key(self, key_id: str, username: str | None = None) -> None:
        """Ends a key for good; ending it again changes nothing.

        Args:
            key_id: `ApiKey.id`.
            username: whose key it must be; None for anybody's.

        Raises:
            NotFoundError: there is no such key.
        """
        query = (
            update(api_keys)
            .where(api_keys.c.id == as_uuid(key_id), api_keys.c.user_id == users.c.id)
            .values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
        )
        if username is not None:
            query = query.where(users.c.username == username)
        async with self._database.transaction() as connection:
            if (await connection.execute(query)).rowcount == 0:
                raise NotFoundError("there is no such API key")

    async def _known(self, username: str) -> Any:
        row = None if _unstorable(username) else await self._row(username)
        if row is None:
            raise NotFoundError(f"there is no user '{username}'")
        return row

    async def _row(self, username: str) -> Any:
        query = select(users).where(users.c.username == username)
        async with self._database.transaction() as connection:
            return (await connection.execute(query)).one_or_none()

    async def _set_hash(self, user_id: UUID, password_hash: str) -> None:
        query = update(users).where(users.c.id == user_id).values(password_hash=password_hash)
        async with self._database.transaction() as connection:
            await connection.execute(query)


def check_account(username: str, password: str, tenant: str, role: str) -> None:
    """Lets only values pass that an account may have.

    Raises:
        InvalidRequestError: names the first field that is wrong.
    """
    _check_name("username", username)
    _check_name("tenant", tenant)
    _check_password(password)
    if role not in ROLES:
        raise wrong_field("role", "takes user or admin")


async def _require_room(connection: AsyncConnection, owner: Any) -> None:
    """Keeps one user's keys from filling the table; its row is held, or many at once would."""
    await connection.execute(select(users.c.id).where(users.c.id == owner.id).with_for_update())
    good = (api_keys.c.user_id == owner.id, api_keys.c.revoked_at.is_(None))
    held = (await connection.execute(select(func.count()).where(*good))).scalar_one()
    if held >= MAX_KEYS:
        raise ConflictError(f"'{owner.username}' has {held} API keys already: revoke one first")


def _keys() -> Any:
    return select(api_keys, users.c.username, users.c.tenant, users.c.role).join(users)


def _user(row: Any) -> User:
    return User(id=str(row.id), username=row.username, tenant=row.tenant, role=row.role)


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=str(row.id),
        name=row.name,
        prefix=row.prefix,
        username=row.username,
        tenant=row.tenant,
        role=row.role,
        created_at=row.created_at.timestamp(),
        revoked_at=row.revoked_at.timestamp() if row.revoked_at else None,
    )


def _digest(plaintext: str) -> bytes:
    return hashlib.sha256(plaintext.encode("utf-8", "replace")).digest()


def _check_name(field: str, value: str) -> None:
    if not 1 <= len(value) <= MAX_NAME or not value.isprintable() or value != value.strip():
        raise wrong_field(field, f"takes 1 to {MAX_NAME} printable characters without outer spaces")


def _check_password(password: str) -> None:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise wrong_field("password", f"takes {MIN_PASSWORD} to {MAX_PASSWORD} characters")


def _unstorable(username: str) -> bool:
    """Whether no user can have this name: it is no name, or UTF-8 does not have it."""
    return not 1 <= len(username) <= MAX_NAME or not username.isprintable()
