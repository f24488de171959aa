"""Access tokens: JWT, HS256, always with an expiry, an issuer, an audience and a subject."""

import secrets
import time
from typing import Any

import jwt

from inferstack.errors import AuthenticationError
from inferstack.lifecycle.types import Caller
from inferstack.storage.accounts import ROLES

ALGORITHM = "HS256"
NAME = "inferstack"
"""Both issuer and audience: only the API issues tokens, only the API takes them."""


class Tokens:
    """Issues and verifies access tokens."""

    def __init__(self, secret: str, ttl: float) -> None:
        """Keeps the secret.

        Args:
            secret: signs the tokens; shared by every API process.
            ttl: seconds for which a token is valid.
        """
        self._secret = secret
        self.ttl = ttl

    def issue(self, caller: Caller) -> str:
        """A token for a user who has just shown the password."""
        now = int(time.time())
        claims = {
            "sub": caller.user,
            "tenant": caller.tenant,
            "role": caller.role,
            "iss": NAME,
            "aud": NAME,
            "iat": now,
            "exp": now + int(self.ttl),
            "jti": secrets.token_urlsafe(9),
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)

    def verify(self, token: str) -> tuple[Caller, float]:
        """Who a token speaks for, and until when, in seconds since the epoch.

        A token without a tenant speaks for the tenant named like its subject, as a user.

        Raises:
            AuthenticationError: it is expired, foreign, or not a token.
        """
        claims = self._claims(token)
        user = claims["sub"]
        tenant, role = claims.get("tenant", user), claims.get("role", "user")
        if not (_is_name(user) and _is_name(tenant) and isinstance(role, str) and role in ROLES):
            raise AuthenticationError("the access token is not valid")
        return Caller(tenant=tenant, user=user, role=role), float(claims["exp"])

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=NAME,
                issuer=NAME,
                # `exp` bounds a token. `iat` would only refuse a new one where a clock is behind.
                options={"require": ["exp", "iss", "aud", "sub"], "verify_iat": False},
            )
        except jwt.ExpiredSignatureError:
            raise AuthenticationError("the access token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise AuthenticationError("the access token is not valid") from None


def _is_name(value: Any) -> bool:
    """Whether it can be written wherever users and tenants are: no NUL, no lone surrogate."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)
