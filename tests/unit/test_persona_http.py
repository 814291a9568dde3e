"""Personas over HTTP: whose they are is kept here too, and everyone's are an administrator's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve.caller import Caller
from serve.errors import NotAllowed
from serve.routes.personas import _owner
from tests.served import Served, served, settings_of


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    settings = settings_of(modules={"persona": {"embedding": {"provider": "none"}}})
    async with served(tmp_path, settings, names=("text_chat", "persona")) as running:
        yield running


async def made(here: Served, name: str, **more: object) -> dict[str, object]:
    answer = await here.client.post("/v1/personas", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    persona: dict[str, object] = answer.json()
    return persona


async def test_a_persona_is_made_changed_read_and_removed(here: Served) -> None:
    one = await made(here, "Dr. Who", user_id="ada", traits=["curious"], examples=[{"user": "q", "assistant": "a"}])
    assert (one["id"], one["version"], one["user_id"]) == ("dr-who", 1, "ada")
    path, whose = "/v1/personas/dr-who", {"user_id": "ada"}
    changed = await here.client.patch(path, json={**whose, "voice": "dry", "expected_version": 1})
    assert (changed.json()["version"], changed.json()["traits"]) == (2, ["curious"])
    assert (await here.client.patch(path, json={**whose, "voice": "x", "expected_version": 1})).status_code == 409
    old = await here.client.get(path, params={**whose, "version": 1})
    assert old.json()["voice"] == ""
    assert (await here.client.get(f"{path}/versions", params=whose)).json()["versions"] == [1, 2]
    assert (await here.client.get(path, params={"user_id": "bob"})).status_code == 404
    assert (await here.client.delete(path, params=whose)).json() == {
        "object": "deleted",
        "id": "dr-who",
        "deleted": True,
    }
    assert (await here.client.get(path, params=whose)).status_code == 404


async def test_lists_come_in_pages(here: Served) -> None:
    await made(here, "common")
    for name in ("b", "a", "c"):
        await made(here, name, user_id="ada")
    page = (await here.client.get("/v1/personas", params={"user_id": "ada", "limit": 3})).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (["a", "b", "c"], True)
    rest = await here.client.get("/v1/personas", params={"user_id": "ada", "after": page["last_id"]})
    assert [one["id"] for one in rest.json()["data"]] == ["common"]
    back = await here.client.get("/v1/personas", params={"user_id": "ada", "order": "desc", "limit": 1})
    assert back.json()["first_id"] == "common"
    assert (await here.client.get("/v1/personas", params={"after": "nobody"})).status_code == 404


async def test_an_export_can_be_imported(here: Served) -> None:
    await made(here, "Ada", traits=["exact"])
    data = (await here.client.get("/v1/personas/ada/export")).json()
    answer = await here.client.post("/v1/persona-imports", json={"user_id": "bob", "data": data, "id": "mine"})
    assert (answer.status_code, answer.json()["traits"]) == (201, ["exact"])
    assert (await here.client.post("/v1/persona-imports", json={"data": {"no": "name"}})).status_code == 400


V2_APPLICATION = {
    "persona_id": "marcus",
    "name": "Marcus",
    "system_prompt": "You are Marcus.",
    "behavioral_traits": {
        "personality": ["pragmatic"],
        "values": "results",
        "communication_style": {"tone": "direct"},
        "humour": "dry",
    },
    "expertise_areas": ["strategy"],
    "demographics": {"age": 45},
    "metadata": None,
}


async def test_a_file_of_v2_can_be_imported(here: Served) -> None:
    answer = await here.client.post("/v1/persona-imports", json={"user_id": "ada", "data": V2_APPLICATION})
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["id"], found["user_id"], found["traits"]) == ("marcus", "ada", ["pragmatic", "results"])
    assert found["voice"] == "tone: direct"
    assert found["metadata"] == {"demographics": {"age": 45}, "behavioral_traits": {"humour": "dry"}}


@pytest.mark.parametrize(
    "data",
    [
        {"format": "other", "name": "n"},
        {"format": "modchat.persona", "version": 2, "persona": {"name": "n"}},
        {"format": "modchat.persona", "version": True, "persona": {"name": "n"}},
        {"format": "modchat.persona", "version": 1, "persona": {"name": "n", "odd": 1}},
        {"name": "n", "traits": [1]},
        {"name": "n", "behavioral_traits": ["kind"]},
        {"name": "n", "communication_style": ["brief"]},
    ],
)
async def test_what_is_no_file_of_a_persona_is_refused(here: Served, data: dict[str, object]) -> None:
    assert (await here.client.post("/v1/persona-imports", json={"data": data})).status_code == 400


async def test_a_change_of_nothing_makes_no_version(here: Served) -> None:
    await made(here, "Ada")
    same = await here.client.patch("/v1/personas/ada", json={"expected_version": 1})
    assert (same.status_code, same.json()["version"], same.json()["user_id"]) == (200, 1, None)
    assert (await here.client.patch("/v1/personas/ada", json={"expected_version": 2})).status_code == 409


async def test_what_is_activated_answers_in_the_session(here: Served) -> None:
    await made(here, "Ada", user_id="ada")
    session = await here.session()
    body = {"user_id": "ada", "session_id": session, "strength": 0.5}
    assert (await here.client.post("/v1/personas/ada/activate", json=body)).json()["strength"] == 0.5
    sent = await here.client.post(f"/v1/sessions/{session}/messages", json={"user_id": "ada", "content": "Hi"})
    assert sent.json()["reply"]["metadata"]["persona"] == {"id": "ada", "version": 1, "strength": 0.5}
    active = await here.client.get(f"/v1/sessions/{session}/persona", params={"user_id": "ada"})
    assert active.json()["persona_id"] == "ada"
    where = {"user_id": "ada", "session_id": session}
    assert (await here.client.post("/v1/personas/other/deactivate", json=where)).status_code == 404
    assert (await here.client.post("/v1/personas/ada/deactivate", json=where)).json()["persona_id"] is None
    none = await here.client.get(f"/v1/sessions/{session}/persona", params={"user_id": "ada"})
    assert none.json()["persona_id"] is None
    refused = await here.client.post("/v1/personas/ada/activate", json={"user_id": "bob", "session_id": session})
    assert refused.status_code == 404


async def test_a_usual_persona_is_activated_and_deactivated(here: Served) -> None:
    await made(here, "Ada")
    assert (await here.client.post("/v1/personas/ada/activate", json={"user_id": "ada"})).status_code == 200
    session = await here.session()
    active = await here.client.get(f"/v1/sessions/{session}/persona", params={"user_id": "ada"})
    assert active.json()["persona_id"] == "ada"
    assert (await here.client.post("/v1/personas/ada/deactivate", json={"user_id": "ada"})).status_code == 200
    assert (await here.client.post("/v1/personas/ada/deactivate", json={"user_id": "ada"})).status_code == 404


async def test_a_persona_is_injected_and_messages_are_judged(here: Served) -> None:
    await made(here, "Ada", user_id="ada", traits=["polite"])
    put = {"user_id": "ada", "message": "Help.", "strength": 1}
    text = (await here.client.post("/v1/personas/ada/inject", json=put)).json()["text"]
    assert text.startswith("You are Ada.")
    assert text.endswith("Help.")
    judge = {"user_id": "ada", "messages": ["Shut up.", {"role": "user", "content": "Idiot!"}]}
    verdict = (await here.client.post("/v1/personas/ada/evaluate", json=judge)).json()
    assert len(verdict["scores"]) == 1
    assert verdict["reasons"] == ["message 1 is not 'polite': rude: 'Shut up'"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "n", "traits": "kind"},
        {"name": "n", "colour": "red"},
        {"name": "n", "template": "{{ ''.__class__ }}"},
        {"name": "n", "metadata": []},
        {"name": "n" * 101},
    ],
)
async def test_what_cannot_be_a_persona_is_refused(here: Served, body: dict[str, object]) -> None:
    assert (await here.client.post("/v1/personas", json=body)).status_code == 400


def test_only_an_administrator_changes_what_is_everyones() -> None:
    user, admin = Caller("u", frozenset({"user"})), Caller("a", frozenset({"user", "admin"}))
    bound = Caller("b", frozenset({"user"}), user_id="ada")
    assert _owner(admin, None) is None
    assert _owner(user, "ada") == "ada"
    assert _owner(bound, None) == "ada"
    for caller, user_id in ((user, None), (bound, "bob")):
        with pytest.raises(NotAllowed):
            _owner(caller, user_id)
