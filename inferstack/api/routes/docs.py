"""The interactive documentation, and where a browser lands. Fetches nothing from other hosts."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from inferstack.api.ui import SECURITY
from inferstack.errors import NotFoundError

router = APIRouter(include_in_schema=False)

OPENAPI_URL = "/api/openapi.json"
ASSETS = ("swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js")
"""Files of the package fastapi-offline that the pages need."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Keeps the browser from asking other hosts, whatever the scripts want: ReDoc has its logo there,
and an operator of a closed network has nobody to tell about it."""
HEADERS = {name.decode(): value.decode() for name, value in SECURITY}
HEADERS["content-security-policy"] = POLICY
# All URLs are relative: they also hold below the prefix of a proxy.
NO_ICON = "data:,"


@router.get("/api/docs")
async def swagger() -> HTMLResponse:
    """The documentation to try things in."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="inferstack",
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url=NO_ICON,
        swagger_ui_parameters={"validatorUrl": None},
    )
    return HTMLResponse(page.body, headers=HEADERS)


@router.get("/api/redoc")
async def redoc() -> HTMLResponse:
    """The documentation to read."""
    page = get_redoc_html(
        openapi_url="openapi.json",
        title="inferstack",
        redoc_js_url="docs/assets/redoc.standalone.js",
        redoc_favicon_url=NO_ICON,
        with_google_fonts=False,
    )
    return HTMLResponse(page.body, headers=HEADERS)


@router.get("/api/docs/assets/{name}")
async def asset(name: str) -> Response:
    """A script or a style of the pages."""
    if name not in ASSETS:
        raise NotFoundError(f"there is nothing at /api/docs/assets/{name}")
    return FileResponse(_folder() / name, headers={"Cache-Control": "max-age=86400"})


@router.get("/")
async def landing() -> RedirectResponse:
    """Where a browser lands that was given the address only."""
    return RedirectResponse("api/docs")


def _folder() -> Path:
    # Without importing it: only its files are of use here.
    found = find_spec("fastapi_offline")
    assert found is not None, "it is a dependency of the API"
    assert found.origin is not None, "it is a package with code"
    return Path(found.origin).parent / "static"
