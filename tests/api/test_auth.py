"""Who may call."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest

from inferstack.api.auth import CACHE_SIZE, STRANGERS, STRANGERS_WAITING, Verified, VerifiedCache
from inferstack.api.bodies import MAX_PARTS
from inferstack.errors import StorageUnavailableError
from inferstack.lifecycle.types import Caller
from inferstack.storage.accounts import ApiKey
from tests.api.fakes import PASSWORD, SECRET, World

URL = "/api/inference"
GOOD = {"data": {"text": "hello"}}
LOGIN = "/api/auth/login"


async def submit(client: httpx.AsyncClient, headers: Any = None) -> httpx.Response:
    return await client.post(URL, json=GOOD, headers=headers)


async def revoke(client: httpx.AsyncClient, world: World, name: str) -> None:
    answer = await client.delete(f"/api/auth/keys/id-{name}", headers=world.bearer())
    assert answer.status_code == 204


def claims(**changes: Any) -> dict[str, Any]:
    found = {"sub": "ann", "iss": "inferstack", "aud": "inferstack", "exp": int(time.time()) + 60}
    found |= changes
    return {name: value for name, value in found.items() if value is not None}


def bearer(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {jwt.encode(claims(**changes), secret, algorithm)}"}


async def test_a_local_call_without_credentials_works_as_local(
    client: httpx.AsyncClient, world: World
) -> None:
    assert (await submit(client)).status_code == 202
    assert world.tasks.calls[-1]["caller"].tenant == "local"


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example:8000"}, {"x-forwarded-for": "1.2.3.4"}, {"forwarded": "for=1.2.3.4"}],
)
async def test_a_call_that_is_not_local_needs_credentials(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await submit(client, headers)).status_code == 401


async def test_credentials_are_required_when_set() -> None:
    world = World(auth_required=True)
    transport = httpx.ASGITransport(app=world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        refused = await submit(client)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert refused.headers["content-type"] == "application/problem+json"
        for path in (URL, "/api/models", "/health/detailed", "/api/auth/keys"):
            assert (await client.get(path)).status_code == 401
        for path in ("/health", "/health/live", "/metrics", "/api/docs", "/api/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await submit(client, world.bearer())).status_code == 202


async def test_a_login_gives_a_token_that_works(client: httpx.AsyncClient, world: World) -> None:
    given = {"username": "ann", "password": PASSWORD}
    for answer in (
        await client.post(LOGIN, json=given),
        await client.post(LOGIN, data={**given, "grant_type": "password"}),
    ):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert (body["token_type"], body["expires_in"]) == ("bearer", 3600)
        await submit(client, {"authorization": f"Bearer {body['access_token']}"})
        assert world.tasks.calls[-1]["caller"] == Caller("acme", "ann", "user")


async def test_a_wrong_login_does_not_tell_which_part_is_wrong(client: httpx.AsyncClient) -> None:
    password = await client.post(LOGIN, json={"username": "ann", "password": "x"})
    username = await client.post(LOGIN, json={"username": "bob", "password": PASSWORD})
    assert password.status_code == username.status_code == 401
    assert password.content == username.content


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"username": "ann"}', "application/json", 422),
        (b"username=ann", "application/x-www-form-urlencoded", 422),
        (b"username=a&username=b&password=c", "application/x-www-form-urlencoded", 422),
        (b"\xff=1", "application/x-www-form-urlencoded", 422),
        (b"username=ann&password=" + b"%41" * 22_000, "application/x-www-form-urlencoded", 422),
        (b"{", "application/json", 422),
        (b"x", "text/plain", 415),
    ],
)
async def test_a_bad_login_body_is_refused(
    client: httpx.AsyncClient, body: bytes, content_type: str, status: int
) -> None:
    answer = await client.post(LOGIN, content=body, headers={"content-type": content_type})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        bearer(exp=1),
        bearer(secret="another secret of 32 characters!!"),
        bearer(iss="else"),
        bearer(aud="else"),
        bearer(exp=None),
        bearer(iss=None),
        bearer(aud=None),
        bearer(sub=None),
        bearer(sub=""),
        bearer(sub=7),
        bearer(role="root"),
        bearer(role=["admin"]),
        bearer(role={}),
        bearer(tenant="a\0b"),
        bearer(tenant="\ud800"),
        bearer(sub="a\0b"),
        bearer(exp=[1]),
        bearer(exp=float("inf")),
        bearer(tenant=""),
        bearer(tenant=["a"]),
        bearer(algorithm="HS512", secret=SECRET * 2),
        {"authorization": f"Bearer {jwt.encode(claims(), '', 'none')}"},
        {"authorization": "Bearer nonsense"},
        {"authorization": "Bearer "},
        {"authorization": "Basic YTpi"},
        {"authorization": ""},
        {"authorization": "Bearer \xff\xfe".encode("latin-1")},
        {"x-api-key": "is_unknown"},
        {"x-api-key": ""},
        {"authorization": "Bearer is_unknown"},
    ],
)
async def test_a_bad_credential_is_refused_even_locally(
    client: httpx.AsyncClient, headers: Any
) -> None:
    assert (await submit(client, headers)).status_code == 401


async def test_an_empty_key_is_refused_beside_a_token_that_is_known(
    client: httpx.AsyncClient,
) -> None:
    assert (await submit(client, bearer())).status_code == 202
    assert (await submit(client, bearer() | {"x-api-key": ""})).status_code == 401


async def test_a_token_without_a_tenant_speaks_for_its_subject(
    client: httpx.AsyncClient, world: World
) -> None:
    await submit(client, bearer())
    assert world.tasks.calls[-1]["caller"] == Caller("ann", "ann", "user")


async def test_a_token_of_a_machine_whose_clock_is_ahead_is_taken(
    client: httpx.AsyncClient,
) -> None:
    assert (await submit(client, bearer(iat=int(time.time()) + 30))).status_code == 202


async def test_a_cached_token_still_expires(client: httpx.AsyncClient) -> None:
    headers = bearer(exp=time.time() + 1.2)
    assert (await submit(client, headers)).status_code == 202
    deadline = time.monotonic() + 10
    while (await submit(client, headers)).status_code == 202:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_key_works_until_it_is_revoked(client: httpx.AsyncClient, world: World) -> None:
    made = await client.post("/api/auth/keys", json={"name": "job"}, headers=world.bearer())
    assert made.status_code == 201
    key = made.json()["key"]
    for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}):
        for _ in range(3):
            assert (await submit(client, headers)).status_code == 202
    assert world.lookups == 2, "one look-up for each way to send it"
    listed = (await client.get("/api/auth/keys", headers=world.bearer())).json()["keys"]
    assert [item["name"] for item in listed] == ["job"]
    assert "key" not in listed[0]
    url = f"/api/auth/keys/{made.json()['id']}"
    assert (await client.delete(url, headers=world.bearer())).status_code == 204
    assert (await submit(client, {"x-api-key": key})).status_code == 401


async def test_many_requests_with_one_key_look_it_up_once(
    client: httpx.AsyncClient, world: World
) -> None:
    await world.accounts.create_api_key("ann", "job")
    answers = await asyncio.gather(*(submit(client, {"x-api-key": "is_job"}) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {202}
    assert world.lookups == 1


async def test_a_known_key_works_on_while_the_database_is_away(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.api.auth.KEY_TRUST", 0.0)
    await world.accounts.create_api_key("ann", "job")
    assert (await submit(client, {"x-api-key": "is_job"})).status_code == 202
    world.key_error = StorageUnavailableError()
    assert (await submit(client, {"x-api-key": "is_job"})).status_code == 202
    assert (await submit(client, {"x-api-key": "is_other"})).status_code == 503
    assert world.lookups == 3


async def test_a_known_key_works_on_while_the_database_stands_still(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.api.auth.KEY_PATIENCE", 0.05)
    monkeypatch.setattr("inferstack.api.auth.KEY_TRUST", -1.0)
    await world.accounts.create_api_key("ann", "job")
    known = {"x-api-key": "is_job"}
    assert (await submit(client, known)).status_code == 202
    answers = asyncio.Event()

    async def revoked(_: str) -> None:
        await answers.wait()

    monkeypatch.setattr(world.authenticator, "_find_key", revoked)
    async with asyncio.timeout(5):
        for _ in range(2):
            assert (await submit(client, known)).status_code == 202
        answers.set()
        for _ in range(2):
            assert (await submit(client, known)).status_code == 401


async def test_a_key_that_is_trusted_in_an_outage_is_not_asked_for_again_at_once(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it took to find out that there is no answer."""
    monkeypatch.setattr("inferstack.api.auth.KEY_TRUST", 1.0)
    await world.accounts.create_api_key("ann", "job")
    asked = 0

    async def fails_late(_: str) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(1.1)
        raise StorageUnavailableError

    known = {"x-api-key": "is_job"}
    assert (await submit(client, known)).status_code == 202
    monkeypatch.setattr(world.authenticator, "_find_key", fails_late)
    await asyncio.sleep(1.0)
    for _ in range(3):
        assert (await submit(client, known)).status_code == 202
    assert asked == 1


@asynccontextmanager
async def flood(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[str]]:
    """As many made-up keys as may wait, unanswered until the block ends; those looked up so far."""
    asked: list[str] = []
    answers, find_key = asyncio.Event(), world.find_key

    async def slow(key: str) -> ApiKey | None:
        if key != "is_job":
            asked.append(key)
            await answers.wait()
        return await find_key(key)

    monkeypatch.setattr(world.authenticator, "_find_key", slow)
    most = STRANGERS + STRANGERS_WAITING
    sent = [asyncio.create_task(submit(client, {"x-api-key": f"is_{i}"})) for i in range(most)]
    async with asyncio.timeout(10):
        while len(world.authenticator._lookups) < most:
            await asyncio.sleep(0)
        yield asked
    answers.set()
    assert {answer.status_code for answer in await asyncio.gather(*sent)} == {401}


async def test_a_flood_of_made_up_keys_takes_few_connections(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.api.auth.KEY_TRUST", -1.0)
    await world.accounts.create_api_key("ann", "job")
    assert (await submit(client, {"x-api-key": "is_job"})).status_code == 202
    async with flood(client, world, monkeypatch) as asked:
        refused = await submit(client, {"x-api-key": "is_late"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] in {"1", "2"}
        assert len(asked) == STRANGERS
        assert (await submit(client, {"x-api-key": "is_job"})).status_code == 202


async def test_a_revoked_key_makes_no_strangers_of_others(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that is revoked again and again."""
    await world.accounts.create_api_key("ann", "job")
    assert (await submit(client, {"x-api-key": "is_job"})).status_code == 202
    async with flood(client, world, monkeypatch):
        for _ in range(2):
            await revoke(client, world, "mine")
            assert (await submit(client, {"x-api-key": "is_job"})).status_code == 202
        assert world.lookups == 1, "it is as fresh as before"


async def test_in_an_outage_a_revoked_key_is_refused_and_others_work_on(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferstack.api.auth.KEY_TRUST", -1.0)
    sent: dict[str, list[dict[str, str]]] = {}
    for name in ("job", "mine"):
        await world.accounts.create_api_key("ann", name)
        sent[name] = [{"x-api-key": f"is_{name}"}, {"authorization": f"Bearer is_{name}"}]
        for headers in sent[name]:
            assert (await submit(client, headers)).status_code == 202
    await revoke(client, world, "mine")
    world.key_error = StorageUnavailableError()
    assert [(await submit(client, headers)).status_code for headers in sent["job"]] == [202, 202]
    assert [(await submit(client, headers)).status_code for headers in sent["mine"]] == [503, 503]


@pytest.mark.parametrize("known", [True, False])
async def test_a_key_that_is_revoked_while_it_is_looked_up_is_refused(
    client: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr("inferstack.api.auth.KEY_TRUST", -1.0)
    key, _ = await world.accounts.create_api_key("ann", "mine")
    headers = {"x-api-key": "is_mine"}
    if known:
        assert (await submit(client, headers)).status_code == 202
    asked, answers = asyncio.Event(), asyncio.Event()

    async def read_before(_: str) -> ApiKey:
        asked.set()
        await answers.wait()
        return key

    monkeypatch.setattr(world.authenticator, "_find_key", read_before)
    async with asyncio.timeout(10):
        early = asyncio.create_task(submit(client, headers))
        await asked.wait()
        await revoke(client, world, "mine")
        late = asyncio.create_task(submit(client, headers))
        await asyncio.sleep(0)
        answers.set()
        assert (await early).status_code == (await late).status_code == 401
    world.key_error = StorageUnavailableError()
    monkeypatch.setattr(world.authenticator, "_find_key", world.find_key)
    assert (await submit(client, headers)).status_code == 503, "it was not remembered as good"


async def test_an_anonymous_caller_has_no_keys(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/auth/keys")).status_code == 401
    assert (await client.post("/api/auth/keys", json={"name": "x"})).status_code == 401


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "x", "more": 1}, {"name": 1}])
async def test_a_bad_key_request_is_refused(
    client: httpx.AsyncClient, world: World, body: dict[str, Any]
) -> None:
    answer = await client.post("/api/auth/keys", json=body, headers=world.bearer())
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in ("name", "more")


async def test_a_key_request_that_is_no_json_names_the_body(
    client: httpx.AsyncClient, world: World
) -> None:
    headers = {"content-type": "application/json", **world.bearer()}
    answer = await client.post("/api/auth/keys", content=b'{"name": }', headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("the body is not JSON: ")
    (entry,) = answer.json()["errors"]
    assert entry["field"] == "body"


async def test_the_body_of_a_stranger_is_not_read(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/api/auth/keys", content=b"no JSON", headers=headers)
    assert answer.status_code == 401


async def test_a_login_body_of_very_many_parts_is_refused_undecoded(
    client: httpx.AsyncClient,
) -> None:
    body = b'{"username": [' + b"[]," * MAX_PARTS + b"[]]}"
    answer = await client.post(LOGIN, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "holds more than" in answer.json()["detail"]


async def test_without_a_secret_there_is_no_login() -> None:
    world = World(secret_key=None)
    transport = httpx.ASGITransport(app=world.edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post(LOGIN, json={"username": "ann", "password": PASSWORD})
        assert answer.status_code == 503
        assert (await submit(client, bearer())).status_code == 401
        assert (await submit(client)).status_code == 202


async def test_a_credential_takes_one_place_however_it_is_written(
    client: httpx.AsyncClient, world: World
) -> None:
    header = bearer()["authorization"]
    secret = header.removeprefix("Bearer ")
    for written in (header, f"bearer {secret}", f"BEARER   {secret}", f"bEaReR {secret}"):
        answer = await client.get("/api/auth/me", headers={"Authorization": written})
        assert answer.status_code == 200
    assert len(world.authenticator._cache) == 1


def test_the_cache_is_bounded_and_holds_no_secrets() -> None:
    cache = VerifiedCache(size=3)
    entry = Verified(Caller("a", "b"), 1.0, 1.0)
    for n in range(5):
        cache.put(b"token-%d" % n, entry)
    assert len(cache) == 3
    assert cache.get(b"token-0") is None
    assert cache.get(b"token-4") == entry
    assert b"token-4" not in repr(vars(cache)).encode()
    assert CACHE_SIZE >= 1000


async def test_the_caller_is_told_who_it_is(client: httpx.AsyncClient, world: World) -> None:
    local = (await client.get("/api/auth/me")).json()
    assert local == {"username": "anonymous", "tenant": "local", "role": "user", "anonymous": True}
    ann = (await client.get("/api/auth/me", headers=world.bearer())).json()
    assert ann == {"username": "ann", "tenant": "acme", "role": "user", "anonymous": False}
    away = await client.get("/api/auth/me", headers={"host": "inference.example"})
    assert away.status_code == 401
