"""Builds the application: FastAPI inside, `Edge` around it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Lifespan

from inferstack.api import openapi
from inferstack.api.edge import Edge, Hook, Hooks
from inferstack.api.hot import HotRoutes
from inferstack.api.meter import Meter
from inferstack.api.problems import problem_response
from inferstack.api.routes import (
    auth,
    dead_letters,
    docs,
    health,
    inference,
    models,
    overview,
    usage,
)
from inferstack.api.services import Lifetime, Services
from inferstack.api.traced import TracedRoutes
from inferstack.api.ui import Ui
from inferstack.config import Settings
from inferstack.errors import (
    InferstackError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
)

MODULES = (inference, dead_letters, usage, auth, models, overview, health, docs)
ROUTERS = tuple(module.router for module in MODULES)


async def _nothing() -> None:
    """A hook for services that need none."""


def create_app(settings: Settings) -> Edge:
    """The application of one API process; it connects when its lifespan starts.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    lifetime = Lifetime(settings)
    return assemble(lifetime.services, lifetime.start, lifetime.stop)


def assemble(services: Services, start: Hook = _nothing, stop: Hook = _nothing) -> Edge:
    """The application over given services.

    Args:
        services: what the routes use.
        start: awaited before the first request.
        stop: awaited after the last one.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await start()
        try:
            yield
        finally:
            await stop()

    inner = routes(lifespan)
    inner.state.services = services
    settings = services.settings
    hot = _hot(services)
    _answer_errors(inner, hot)
    ui = Ui(settings.ui_path)

    def leave(seconds: float) -> None:
        services.monitor.leaving = True
        services.tasks.cut_waits(seconds)
        services.overview.close()

    return Edge(inner, hot, ui, settings.max_body_bytes, Hooks(start, leave, stop))


def routes(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Every route but the hot ones, and the document that describes all."""
    inner = FastAPI(
        title="inferstack",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=docs.OPENAPI_URL,
        redirect_slashes=False,
    )
    for router in ROUTERS:
        inner.include_router(router)
    openapi.install(inner)
    return inner


def _hot(services: Services) -> HotRoutes:
    """The hot routes; those with spans only where they are sent, so that others pay nothing."""
    parts = (services.tasks, services.authenticator, Meter(), services.settings.max_wait)
    return HotRoutes(*parts) if services.tracer is None else TracedRoutes(*parts, services.tracer)


def _answer_errors(inner: FastAPI, hot: HotRoutes) -> None:
    """Every failure becomes problem details."""

    @inner.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        # Otherwise Starlette answers by itself. `Edge` does, and writes it down.
        raise error

    @inner.exception_handler(InferstackError)
    async def ours(request: Request, error: InferstackError) -> Response:
        return _response(error, request)

    @inner.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        entries = [_entry(item) for item in error.errors()]
        detail = "; ".join(f"{entry['field']}: {entry['message']}" for entry in entries)
        return _response(InvalidRequestError(detail, errors=entries), request)

    @inner.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            first = (error.headers or {}).get("Allow", "")
            allowed = ", ".join(sorted(_allowed(first, hot, request)))
            response = _response(MethodNotAllowedError(f"this path takes {allowed}"), request)
            response.headers["allow"] = allowed
            return response
        if error.status_code == 404:
            return _response(NotFoundError(f"there is nothing at {request.url.path}"), request)
        return _response(InvalidRequestError(str(error.detail)), request)


def _allowed(first: str, hot: HotRoutes, request: Request) -> set[str]:
    """Every method that a path takes.

    Args:
        first: those of the first route that has this path, which is what Starlette tells.
        hot: the routes that FastAPI does not know.
        request: the request.
    """
    found = set(first.split(", ")) - {""}
    found |= {method for method in ("GET", "POST") if hot.match(method, request.url.path)}
    for route in (route for router in ROUTERS for route in router.routes):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return found | {"HEAD"} if "GET" in found else found


def _entry(item: Any) -> dict[str, str]:
    names = [str(part) for part in item["loc"] if part not in ("query", "path", "header")]
    return {"field": ".".join(names), "message": item["msg"]}


def _response(error: InferstackError, request: Request) -> Response:
    status, headers, body = problem_response(error, request.url.path)
    return Response(
        body, status, {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    )
