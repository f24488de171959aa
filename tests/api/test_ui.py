"""The web UI's files: what is served where, and how browsers may keep it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.fakes import World

PAGE = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>inferstack</title>")
    (tmp_path / "assets" / "index-abc123.js").write_text("console.log(1);" * 200)
    (tmp_path / "favicon.svg").write_text("<svg/>")
    return tmp_path


@pytest.fixture
async def browser(dist: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=World(ui_path=dist).edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks/0199-x", "/dead-letters", "/index.html"])
async def test_pages_are_the_index_whatever_their_path(
    browser: httpx.AsyncClient, path: str
) -> None:
    answer = await browser.get(path, headers=PAGE)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>inferstack</title>" in answer.text
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_hashed_files_are_kept_for_ever_and_others_are_checked(
    browser: httpx.AsyncClient,
) -> None:
    script = await browser.get("/assets/index-abc123.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-encoding"] == "gzip"
    plain = await browser.get("/assets/index-abc123.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == script.content
    icon = await browser.get("/favicon.svg")
    assert icon.headers["content-type"] == "image/svg+xml; charset=utf-8"
    again = await browser.get("/favicon.svg", headers={"if-none-match": icon.headers["etag"]})
    assert again.status_code == 304
    assert again.content == b""
    assert "content-length" not in again.headers


async def test_the_api_keeps_its_problems(browser: httpx.AsyncClient) -> None:
    for path in ("/api/nothing", "/v1/models", "/v2/health/live", "/health/nothing", "/metrics/x"):
        answer = await browser.get(path, headers=PAGE)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await browser.get("/api/models", headers=PAGE)).json()["models"]
    assert (await browser.get("/health", headers=PAGE)).json()["status"] == "healthy"


@pytest.mark.parametrize(
    "path", ["/assets/gone.js", "/nothing.png", "/../index.html/..%2f", "/assets/../../etc/passwd"]
)
async def test_what_is_no_page_is_404(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_page_only_takes_get_and_head(browser: httpx.AsyncClient) -> None:
    assert (await browser.head("/tasks", headers=PAGE)).status_code == 200
    assert (await browser.post("/tasks", headers=PAGE)).status_code == 404


async def test_without_a_ui_the_documentation_is_where_a_browser_lands(
    client: httpx.AsyncClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await client.get("/", headers=PAGE)).headers["location"] == "api/docs"
    assert (await client.get("/tasks", headers=PAGE)).status_code == 404
    empty = World(ui_path=tmp_path)
    assert f"UI_PATH={tmp_path}" in caplog.text
    transport = httpx.ASGITransport(app=empty.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as other:
        assert (await other.get("/")).headers["location"] == "api/docs"
