"""Logging in, and API keys."""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from fastapi import APIRouter, Request
from msgspec import Meta
from pydantic import BaseModel

from inferstack.api.auth import ANONYMOUS
from inferstack.api.bodies import SMALL, read_json, require_json
from inferstack.api.routes.answers import content, described
from inferstack.api.routes.dependencies import AccountOf, CallerOf, HeadersOf, ServicesOf
from inferstack.errors import AuthenticationError, LoginUnavailableError, wrong_field
from inferstack.lifecycle.types import Caller
from inferstack.storage.accounts import ApiKey

router = APIRouter(prefix="/api/auth", tags=["auth"])

LISTED = 2000
"""Keys that one list holds."""

FORM = "application/x-www-form-urlencoded"
_FIELDS = {
    "type": "object",
    "required": ["username", "password"],
    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
}
_EXAMPLE = {"username": "admin", "password": "correct horse battery staple"}
LOGIN_DOC: dict[str, Any] = {
    "security": [],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _FIELDS, "example": _EXAMPLE},
            FORM: {"schema": _FIELDS},
        },
    },
}


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a user logs in with."""

    username: str
    password: str


class Token(BaseModel):
    """An access token."""

    access_token: str
    token_type: str = "bearer"
    expires_in: int
    """Seconds."""


class Me(BaseModel):
    """Who sends the request."""

    username: str
    tenant: str
    role: str
    """`user` sees its tenant's tasks, `admin` sees all."""
    anonymous: bool
    """Whether it is a local caller without credentials."""


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to make."""

    name: Annotated[str, Meta(min_length=1, max_length=128, examples=["nightly-job"])]


NEW_KEY_DOC = {"requestBody": {"required": True, "content": content("NewKey")}}
TOO_MANY = described(
    "ProblemView", "The caller has too many.", 409, media="application/problem+json"
)


class Key(BaseModel):
    """An API key, without the key itself."""

    id: str
    name: str
    prefix: str
    """Its first characters."""
    username: str
    created_at: datetime
    revoked_at: datetime | None


class CreatedKey(Key):
    """A new key; the only time that it is shown."""

    key: str


class Keys(BaseModel):
    """Keys, newest first."""

    keys: list[Key]


@router.post("/login", openapi_extra=LOGIN_DOC)
async def login(request: Request, headers: HeadersOf, services: ServicesOf) -> Token:
    """Gives an access token for a username and a password, as JSON or as an OAuth2 form."""
    if services.tokens is None:
        raise LoginUnavailableError("set SECRET_KEY to log in; local calls need no credentials")
    given = _credentials(headers.get(b"content-type"), await request.body())
    user = await services.accounts.verify_password(given.username, given.password)
    if user is None:
        raise AuthenticationError("the username or the password is wrong")
    token = services.tokens.issue(Caller(user.tenant, user.username, user.role))
    return Token(access_token=token, expires_in=int(services.tokens.ttl))


@router.get("/me")
async def me(who: CallerOf) -> Me:
    """Who the API takes the caller for; 401 if it takes nobody without credentials."""
    return Me(username=who.user, tenant=who.tenant, role=who.role, anonymous=who == ANONYMOUS)


# FastAPI reads a body that is a parameter before it asks who sends it, whatever its size.
@router.post("/keys", status_code=201, openapi_extra=NEW_KEY_DOC, responses=TOO_MANY)
async def create_key(request: Request, who: AccountOf, services: ServicesOf) -> CreatedKey:
    """Makes an API key that speaks for the caller; a user has at most 100 that are not revoked."""
    wanted = read_json(await request.body(), NewKey)
    key, plaintext = await services.accounts.create_api_key(who.user, wanted.name)
    return CreatedKey(**_key(key).model_dump(), key=plaintext)


@router.get("/keys")
async def list_keys(who: AccountOf, services: ServicesOf) -> Keys:
    """The caller's keys; an admin reads everybody's. At most 2,000, revoked ones left out first."""
    found = await services.accounts.api_keys(_owner(who), LISTED)
    return Keys(keys=[_key(key) for key in found])


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, who: AccountOf, services: ServicesOf) -> None:
    """Ends a key; other API processes refuse it within 10 seconds."""
    await services.accounts.revoke_api_key(key_id, _owner(who))
    services.authenticator.revoked(key_id)


def _owner(who: Caller) -> str | None:
    return None if who.role == "admin" else who.user


def _key(key: ApiKey) -> Key:
    revoked = key.revoked_at
    return Key(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        username=key.username,
        created_at=datetime.fromtimestamp(key.created_at, UTC),
        revoked_at=None if revoked is None else datetime.fromtimestamp(revoked, UTC),
    )


def _credentials(content_type: bytes | None, body: bytes) -> Credentials:
    media = (content_type or b"").partition(b";")[0].strip().lower()
    if media != FORM.encode():
        require_json(content_type)
        return read_json(body, Credentials)
    if len(body) > SMALL:
        # Undoing the percent signs of megabytes would stop the event loop.
        raise wrong_field("body", f"has {len(body)} bytes; a form takes {SMALL} at most")
    try:
        form = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise wrong_field("body", f"is not a form: {error}") from None
    return Credentials(_field(form, "username"), _field(form, "password"))


def _field(form: dict[str, list[str]], name: str) -> str:
    values = form.get(name, [])
    if len(values) != 1:
        raise wrong_field(name, "is missing" if not values else "is there more than once")
    return values[0]
