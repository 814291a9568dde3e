"""Sessions over HTTP, and whose they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.served import Served, served


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


async def test_a_session_is_made_looked_at_changed_and_deleted(here: Served) -> None:
    made = await here.client.post("/v1/sessions", json={"user_id": "ada", "title": "One", "metadata": {"a": 1}})
    assert made.status_code == 201
    session = made.json()
    assert (session["title"], session["metadata"], session["active"]) == ("One", {"a": 1}, True)
    path = f"/v1/sessions/{session['id']}"
    assert (await here.client.get(path, params={"user_id": "ada"})).json() == session
    renamed = await here.client.patch(path, json={"user_id": "ada", "title": "Two"})
    assert renamed.json()["title"] == "Two"
    deleted = await here.client.delete(path, params={"user_id": "ada"})
    assert deleted.json() == {"object": "deleted", "id": session["id"], "deleted": True}
    assert (await here.client.get(path, params={"user_id": "ada"})).status_code == 404
    assert (await here.client.delete(path, params={"user_id": "ada"})).status_code == 404


async def test_a_session_that_was_ended_takes_no_more_messages(here: Served) -> None:
    session = await here.session()
    ended = await here.client.patch(f"/v1/sessions/{session}", json={"user_id": "ada", "active": False})
    assert ended.json()["active"] is False
    body = {"user_id": "ada", "content": "too late", "reply": False}
    assert (await here.client.post(f"/v1/sessions/{session}/messages", json=body)).status_code == 409


async def test_members_of_metadata_are_set_beside_those_that_are_there(here: Served) -> None:
    session = await here.session(metadata={"a": 1, "b": 2})
    changed = await here.client.patch(f"/v1/sessions/{session}", json={"user_id": "ada", "metadata": {"b": 3}})
    assert changed.json()["metadata"] == {"a": 1, "b": 3}


async def test_a_change_that_changes_nothing_is_refused(here: Served) -> None:
    session = await here.session()
    for body in ({"user_id": "ada"}, {"user_id": "ada", "active": True}):
        assert (await here.client.patch(f"/v1/sessions/{session}", json=body)).status_code == 400


async def test_sessions_are_listed_in_either_order(here: Served) -> None:
    ids = [await here.session(title=str(number)) for number in range(3)]
    oldest_first = (await here.client.get("/v1/sessions", params={"user_id": "ada"})).json()
    assert [one["id"] for one in oldest_first["data"]] == ids
    page = (await here.client.get("/v1/sessions", params={"user_id": "ada", "order": "desc", "limit": 2})).json()
    assert [one["id"] for one in page["data"]] == ids[:0:-1]
    assert page["has_more"] is True
    rest = {"user_id": "ada", "order": "desc", "limit": 2, "after": page["last_id"]}
    assert [one["id"] for one in (await here.client.get("/v1/sessions", params=rest)).json()["data"]] == ids[:1]


async def test_a_fork_begins_with_the_same_messages_up_to_one(here: Served) -> None:
    session = await here.session(title="Origin")
    first = await here.store(session, "first")
    await here.store(session, "second")
    body = {"user_id": "ada", "at_message_id": first["id"], "title": "Fork"}
    fork = await here.client.post(f"/v1/sessions/{session}/fork", json=body)
    assert (fork.status_code, fork.json()["title"], fork.json()["message_count"]) == (201, "Fork", 1)


async def test_one_id_of_two_users_is_a_conflict_that_names_both(here: Served) -> None:
    for user in ("ada", "bob"):
        home = here.platform.base / "text_chat/sessions" / user / "same"
        home.mkdir(parents=True)
        (home / "metadata.json").write_text(json.dumps({"id": "same", "user_id": user, "title": user}))
    answer = await here.client.get("/v1/sessions/same")
    assert answer.status_code == 409
    assert "'ada'" in answer.json()["error"]["message"]
    assert "'bob'" in answer.json()["error"]["message"]
    assert (await here.client.get("/v1/sessions/same?user_id=bob")).json()["title"] == "bob"


@pytest.mark.parametrize("session_id", ["my custom/ session", "a/messages", "ü %2F é", "..", "a//b", "x/"])
async def test_any_text_is_an_id(here: Served, session_id: str) -> None:
    from urllib.parse import quote

    from modules.core.layout import session_dir

    home = here.platform.base / session_dir("ada", session_id)
    home.mkdir(parents=True)
    (home / "metadata.json").write_text(json.dumps({"id": session_id, "user_id": "ada", "title": "Odd"}))
    path = "/v1/sessions/" + quote(session_id, safe="")
    path = path.replace("..", "%2E%2E")
    answer = await here.client.get(path, params={"user_id": "ada"})
    assert (answer.status_code, answer.json()["id"]) == (200, session_id)
    body = {"user_id": "ada", "content": "hello", "reply": False}
    assert (await here.client.post(f"{path}/messages", json=body)).status_code == 201
    page = (await here.client.get(f"{path}/messages", params={"user_id": "ada"})).json()
    assert [one["content"] for one in page["data"]] == ["hello"]


async def test_messages_are_found_by_what_they_say(here: Served) -> None:
    session = await here.session()
    ids = [(await here.store(session, text))["id"] for text in ("An Engine", "a wheel", "engines", "ENGINE oil")]
    await here.store(await here.session("bob"), "bob's engine", user_id="bob")
    found = (await here.client.get("/v1/search", params={"user_id": "ada", "query": "engine", "limit": 2})).json()
    assert ([one["id"] for one in found["data"]], found["has_more"]) == ([ids[3], ids[2]], True)
    rest = {"user_id": "ada", "query": "engine", "limit": 2, "after": found["last_id"]}
    page = (await here.client.get("/v1/search", params=rest)).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([ids[0]], False)
    assert (await here.client.get("/v1/search", params={**rest, "after": "none"})).status_code == 404


async def test_a_user_has_no_more_sessions_than_allowed(here: Served) -> None:
    for _ in range(100):
        await here.session("many")
    answer = await here.client.post("/v1/sessions", json={"user_id": "many"})
    assert answer.status_code == 409
