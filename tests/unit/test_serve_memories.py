"""Memories over HTTP, and the routes of a module that does not run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.served import Served, served


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


async def remembered(here: Served, key: str, content: object, **more: object) -> dict[str, object]:
    answer = await here.client.post("/v1/memories", json={"user_id": "ada", "key": key, "content": content, **more})
    assert answer.status_code == 201, answer.text
    item: dict[str, object] = answer.json()
    return item


async def test_what_is_stored_is_recalled_by_its_key(here: Served) -> None:
    stored = await remembered(here, "tea/how", {"milk": False}, metadata={"importance": 0.9})
    assert stored["importance"] == 0.9
    answer = await here.client.get("/v1/memories/tea%2Fhow", params={"user_id": "ada"})
    assert answer.json()["content"] == {"milk": False}
    missing = await here.client.get("/v1/memories/tea%2Fhow", params={"user_id": "bob"})
    assert missing.status_code == 404


async def test_what_is_deleted_is_gone_for_its_own_user_alone(here: Served) -> None:
    await remembered(here, "tea", "no milk")
    assert (await here.client.delete("/v1/memories/tea", params={"user_id": "bob"})).status_code == 404
    deleted = await here.client.delete("/v1/memories/tea", params={"user_id": "ada"})
    assert deleted.json() == {"object": "deleted", "id": "tea", "deleted": True}
    assert (await here.client.get("/v1/memories/tea", params={"user_id": "ada"})).status_code == 404


async def test_memories_are_searched_best_first(here: Served) -> None:
    await remembered(here, "tea", "takes tea without milk")
    await remembered(here, "car", "drives a green car")
    await remembered(here, "milk", "milk, milk and milk")
    page = (await here.client.get("/v1/memories", params={"user_id": "ada", "query": "milk", "limit": 1})).json()
    assert (len(page["data"]), page["has_more"], page["first_id"]) == (1, True, page["data"][0]["key"])


async def test_what_matters_is_made_long_term(here: Served) -> None:
    await remembered(here, "tea", "no milk", metadata={"importance": 0.9})
    answer = await here.client.post("/v1/consolidations", json={"user_id": "ada", "strategy": "importance"})
    assert answer.json()["moved"] == ["tea"]
    kept = await here.client.get("/v1/memories/tea", params={"user_id": "ada", "memory_type": "long_term"})
    assert kept.json()["content"] == "no milk"


async def test_a_session_has_a_window_of_what_is_known(here: Served) -> None:
    await remembered(here, "tea", "no milk", session_id="s1")
    window = (await here.client.get("/v1/sessions/s1/context", params={"user_id": "ada"})).json()
    assert [one["key"] for one in window["memories"]] == ["tea"]
    assert window["tokens"] > 0


@pytest.mark.parametrize(
    "body",
    [
        {"key": "k", "content": 1},
        {"user_id": "ada", "content": 1},
        {"user_id": "ada", "key": "k", "content": 1, "ttl": 0},
        {"user_id": "ada", "key": "k", "content": 1, "memory_type": "middle_term"},
        {"user_id": "ada", "key": "k", "content": 1, "metadata": {"importance": 7}},
    ],
)
async def test_what_cannot_be_remembered_is_refused(here: Served, body: dict[str, object]) -> None:
    assert (await here.client.post("/v1/memories", json=body)).status_code == 400


async def test_routes_of_a_module_that_does_not_run_say_so(tmp_path: Path) -> None:
    async with served(tmp_path, names=("text_chat",)) as here:
        answer = await here.client.get("/v1/memories", params={"user_id": "ada", "query": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "module_not_found")
        assert (await here.client.get("/v1/sessions", params={"user_id": "ada"})).status_code == 200
