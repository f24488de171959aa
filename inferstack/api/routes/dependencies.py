"""What FastAPI routes ask for: the services, the headers, the caller.

All are coroutines: FastAPI runs any other function in a thread, which takes longer than it does.
"""

from typing import Annotated

from fastapi import Depends, Request

from inferstack.api.auth import ANONYMOUS
from inferstack.api.exchange import header_map
from inferstack.api.services import Services
from inferstack.errors import AuthenticationError
from inferstack.lifecycle.types import Caller


async def services(request: Request) -> Services:
    """The services of this process."""
    found = request.app.state.services
    assert isinstance(found, Services)
    return found


ServicesOf = Annotated[Services, Depends(services)]


async def headers(request: Request) -> dict[bytes, bytes]:
    """Headers by name, in lower case, as the hot routes have them."""
    return header_map(request.headers.raw)


HeadersOf = Annotated[dict[bytes, bytes], Depends(headers)]


async def caller(given: HeadersOf, found: ServicesOf) -> Caller:
    """Who sends the request.

    Raises:
        AuthenticationError: there is no credential, or it is not valid.
    """
    return await found.authenticator.caller(given)


CallerOf = Annotated[Caller, Depends(caller)]


async def account(who: CallerOf) -> Caller:
    """A caller that has an account.

    Raises:
        AuthenticationError: it is an anonymous one.
    """
    if who == ANONYMOUS:
        raise AuthenticationError("log in first: this belongs to an account")
    return who


AccountOf = Annotated[Caller, Depends(account)]
