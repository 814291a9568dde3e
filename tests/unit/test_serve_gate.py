"""Who comes in, whose data they get, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from modules.core.clock import new_hex
from serve.keys import KeyFile
from tests.served import Served, served, settings_of


class Keyring:
    def __init__(self, path: Path) -> None:
        self.file = KeyFile(path)

    def key(self, *scopes: str, user: str | None = None) -> dict[str, str]:
        _, shown = self.file.create(
            "test",
            scopes or ("user",),
            user,
            now=datetime.now(UTC),
            new_id=new_hex,
            new_secret=lambda: (new_hex() * 2)[:43],
        )
        return {"Authorization": f"Bearer {shown}"}


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys.json")


@pytest.fixture
async def locked(tmp_path: Path, keyring: Keyring) -> AsyncIterator[Served]:
    keyring.key("admin")
    async with served(tmp_path / "base", settings_of({"api_keys_file": str(keyring.file.path)})) as here:
        yield here


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    monkeypatch.setattr("serve.key_ring._EVERY_S", 0.02)


async def with_key(here: Served, keyring: Keyring, *scopes: str, user: str | None = None) -> dict[str, str]:
    """A new key that the server has already taken notice of."""
    headers = keyring.key(*scopes, user=user)
    async with asyncio.timeout(5):
        while (await here.client.get("/v1/models", headers=headers)).status_code == 401:
            await asyncio.sleep(0.01)
    return headers


@pytest.mark.slow
async def test_without_a_key_only_what_is_nobodys_is_shown(locked: Served) -> None:
    for path in ("/health", "/ready", "/health/modules/memory", "/openapi.json", "/", "/console/console.js"):
        assert (await locked.client.get(path)).status_code == 200, path
    for path in ("/v1/sessions?user_id=ada", "/metrics", "/v1/migrations", "/v1/nothing", "/nothing"):
        answer = await locked.client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "shown", ["Bearer nonsense", "Bearer mc_0000000000000000_" + "s" * 43, "Basic YTpi", "Bearer "]
)
async def test_a_key_that_is_none_is_refused(locked: Served, shown: str) -> None:
    answer = await locked.client.get("/v1/models", headers={"Authorization": shown})
    assert answer.status_code == 401


async def test_a_new_key_is_in_force_and_a_revoked_one_is_not_within_seconds(locked: Served, keyring: Keyring) -> None:
    headers = await with_key(locked, keyring)
    key_id = headers["Authorization"].split("_")[1]
    keyring.file.revoke(key_id, now=datetime.now(UTC))
    async with asyncio.timeout(5):
        while (await locked.client.get("/v1/models", headers=headers)).status_code == 200:
            await asyncio.sleep(0.01)


async def test_a_bound_key_is_its_user_and_nobody_else(locked: Served, keyring: Keyring) -> None:
    ada = await with_key(locked, keyring, user="ada")
    bob = await with_key(locked, keyring, user="bob")
    made = await locked.client.post("/v1/sessions", json={"user_id": "ada"}, headers=ada)
    assert made.json()["user_id"] == "ada"
    path = f"/v1/sessions/{made.json()['id']}"
    assert (await locked.client.get(path, headers=ada)).status_code == 200
    assert (await locked.client.get(path, headers=bob)).status_code == 404
    assert (await locked.client.get(path, headers=bob, params={"user_id": "ada"})).status_code == 403
    body = {"user_id": "ada", "content": "x", "reply": False}
    assert (await locked.client.post(f"{path}/messages", json=body, headers=bob)).status_code == 403
    hello = {"model": "extractive", "messages": [{"role": "user", "content": "x"}], "user": "ada"}
    assert (await locked.client.post("/v1/chat/completions", json=hello, headers=bob)).status_code == 403
    search = {"query": "x", "user_id": "ada"}
    for where in ("/v1/search", "/v1/memories"):
        assert (await locked.client.get(where, params=search, headers=bob)).status_code == 403


ADMIN_ONLY = [
    ("GET", "/v1/migrations"),
    ("GET", "/v1/migrations/run-000001"),
    ("GET", "/v1/migrations/run-000001/events"),
    ("GET", "/metrics"),
    ("GET", "/v1/users/ada/export"),
    ("DELETE", "/v1/users/ada"),
]


@pytest.mark.parametrize(("method", "path"), ADMIN_ONLY)
async def test_some_things_need_an_administrator(locked: Served, keyring: Keyring, method: str, path: str) -> None:
    user, admin = await with_key(locked, keyring), await with_key(locked, keyring, "admin")
    assert (await locked.client.request(method, path, headers=user)).status_code == 403
    assert (await locked.client.request(method, path, headers=admin)).status_code in (200, 404)


async def test_a_bound_key_may_export_and_erase_its_own_user(locked: Served, keyring: Keyring) -> None:
    ada = await with_key(locked, keyring, user="ada")
    assert (await locked.client.get("/v1/users/ada/export", headers=ada)).status_code == 200
    assert (await locked.client.delete("/v1/users/ada", headers=ada)).status_code == 200
    assert (await locked.client.delete("/v1/users/bob", headers=ada)).status_code == 403


async def test_an_administrator_who_is_bound_to_a_user_is_bound(locked: Served, keyring: Keyring) -> None:
    bound = await with_key(locked, keyring, "admin", user="ada")
    assert (await locked.client.delete("/v1/users/bob", headers=bound)).status_code == 403


async def test_requests_over_the_limit_are_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    async with served(tmp_path / "base", settings_of({"requests_per_minute": 3})) as here:
        left = [(await here.client.get("/v1/models")).headers["x-ratelimit-remaining"] for _ in range(3)]
        assert left == ["2", "1", "0"]
        answer = await here.client.get("/v1/models")
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
        assert answer.headers["x-ratelimit-limit"] == "3"
        assert (await here.client.get("/health")).status_code == 200
        assert (await here.client.get("/ready")).status_code == 200


async def test_each_key_has_a_limit_of_its_own_and_guessing_uses_none_up(tmp_path: Path, keyring: Keyring) -> None:
    one, other = keyring.key(), keyring.key()
    settings = settings_of({"requests_per_minute": 3, "api_keys_file": str(keyring.file.path)})
    async with served(tmp_path / "base", settings) as here:
        guesses = [
            (await here.client.get("/v1/models", headers={"Authorization": "Bearer x"})).status_code for _ in range(4)
        ]
        assert guesses == [401, 401, 401, 429]
        for headers in (one, other):
            assert [(await here.client.get("/v1/models", headers=headers)).status_code for _ in range(4)] == [
                200
            ] * 3 + [429]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000", "127.8.8.8"])
async def test_a_server_without_keys_answers_to_its_own_machine(tmp_path: Path, host: str) -> None:
    async with served(tmp_path / "base") as here:
        assert (await here.client.get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[::1", "10.0.0.1"])
async def test_a_page_that_gave_its_own_name_this_address_is_refused(tmp_path: Path, host: str) -> None:
    async with served(tmp_path / "base") as here:
        answer = await here.client.get("/v1/models", headers={"Host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999"])
async def test_a_change_on_behalf_of_a_foreign_page_is_refused(tmp_path: Path, origin: str) -> None:
    async with served(tmp_path / "base") as here:
        answer = await here.client.post("/v1/sessions", json={"user_id": "ada"}, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
        own = await here.client.post(
            "/v1/sessions", json={"user_id": "ada"}, headers={"Origin": "http://127.0.0.1:8000"}
        )
        assert own.status_code == 201


@pytest.mark.slow
async def test_the_document_says_where_a_key_is_needed(locked: Served, tmp_path: Path) -> None:
    document = (await locked.client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/v1/sessions"]["get"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/health"]["get"]
    (tmp_path / "open").mkdir()
    async with served(tmp_path / "open") as here:
        document = (await here.client.get("/openapi.json")).json()
        assert "security" not in document["paths"]["/v1/sessions"]["get"]


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    headers: dict[str, Any] = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    return await client.options("/v1/sessions", headers=headers)


async def test_browsers_are_let_in_for_the_origins_that_are_set_alone(tmp_path: Path) -> None:
    good = "https://chat.example"
    async with served(tmp_path / "base", settings_of({"cors_origins": [good]})) as here:
        allowed = await preflight(here.client, good)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, good)
        assert "access-control-allow-origin" not in (await preflight(here.client, "https://evil.example")).headers
        made = await here.client.post("/v1/sessions", json={"user_id": "ada"}, headers={"Origin": good})
        assert (made.status_code, made.headers["access-control-allow-origin"]) == (201, good)


async def test_without_that_setting_no_origin_is_let_in(tmp_path: Path) -> None:
    async with served(tmp_path / "base") as here:
        answer = await preflight(here.client, "https://chat.example")
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers
