"""Routing over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.router_platform import EXAMPLES
from tests.served import Served, served, settings_of

MODULES = {"topic_router": {"embedding": {"provider": "none"}}, "persona": {"embedding": {"provider": "none"}}}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    names = ("text_chat", "persona", "topic_router")
    async with served(tmp_path, settings_of(modules=MODULES), names=names) as running:
        examples = [
            one if isinstance(one, dict) else {"content": one[0], "topics": one[1]} for one in [*EXAMPLES, *EXAMPLES]
        ]
        answer = await running.client.post("/v1/route/examples", json={"examples": examples})
        assert answer.json() == {"added": 26, "examples": 13, "is_current": True}
        await running.client.put("/v1/route/specialists/chef", json={"topics": ["cooking"], "persona_id": "chef"})
        yield running


async def test_a_text_is_classified_and_routed(here: Served) -> None:
    found = (await here.client.post("/v1/route/classify", json={"content": "bake bread dough"})).json()
    assert found["scores"][0]["topic"] == "cooking"
    assert (await here.client.get("/v1/route/topics")).json() == {"topics": {"cooking": 7, "legal": 6}}
    body = {"user_id": "ada", "content": "bake bread and a cake with egg"}
    route = (await here.client.post("/v1/route", json=body)).json()
    assert (route["outcome"], route["specialist_id"]) == ("matched", "chef")
    left_out = await here.client.post("/v1/route", json={**body, "available_specialists": []})
    assert left_out.json()["outcome"] == "no_match"
    unknown = await here.client.post("/v1/route", json={**body, "available_specialists": ["nobody"]})
    assert unknown.status_code == 404
    told = {"user_id": "ada", "succeeded": True, "latency_s": 0.5}
    assert (await here.client.post(f"/v1/routes/{route['id']}/outcome", json=told)).status_code == 200
    assert (await here.client.post(f"/v1/routes/{route['id']}/outcome", json=told)).status_code == 404
    verdict = {"user_id": "ada", "was_right": True}
    assert (await here.client.post(f"/v1/routes/{route['id']}/verdict", json=verdict)).status_code == 200
    report = (await here.client.get("/v1/route/report", params={"period": "1h"})).json()
    assert (report["routes"], report["judged"], report["right"]) == (2, 1, 1)
    assert (await here.client.get("/v1/route/report", params={"period": "soon"})).status_code == 400


async def test_a_message_that_is_to_be_routed_is_answered_by_the_specialist(here: Served) -> None:
    await here.client.post("/v1/personas", json={"name": "chef"})
    session = await here.session()
    body = {"user_id": "ada", "content": "bake bread and a cake with egg", "metadata": {"route": True}}
    reply = (await here.client.post(f"/v1/sessions/{session}/messages", json=body)).json()["reply"]
    assert reply["metadata"]["route"]["specialist_id"] == "chef"
    assert reply["metadata"]["persona"]["id"] == "chef"


async def test_talk_is_cut_where_its_topic_changes(here: Served) -> None:
    talk = ["bake bread and a cake with egg", {"content": "the court and a contract, my lawyer"}]
    segments = (await here.client.post("/v1/route/boundaries", json={"messages": talk})).json()["segments"]
    assert [one["topic"] for one in segments] == ["cooking", "legal"]


async def test_examples_and_specialists_are_listed_in_pages_and_removed(here: Served) -> None:
    seen = []
    params: dict[str, str | int] = {"limit": 5}
    while True:
        page = (await here.client.get("/v1/route/examples", params=params)).json()
        seen += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        params["after"] = page["last_id"]
    assert len(set(seen)) == len(seen) == 13
    gone = (await here.client.delete(f"/v1/route/examples/{seen[0]}")).json()
    assert (gone["added"], gone["examples"]) == (-1, 12)
    listed = (await here.client.get("/v1/route/specialists")).json()
    assert [one["id"] for one in listed["data"]] == ["chef"]
    assert (await here.client.delete("/v1/route/specialists/chef")).json() == {"id": "chef", "done": True}
    assert (await here.client.delete("/v1/route/specialists/chef")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/route", {"content": ""}),
        ("/v1/route", {"content": "   "}),
        ("/v1/route/examples", {"examples": [{"content": "x", "topics": ["a//b"]}]}),
        ("/v1/route/examples", {"examples": []}),
        ("/v1/route/classify", {"content": "x", "context_history": "y"}),
        ("/v1/route/boundaries", {"messages": [7]}),
    ],
)
async def test_what_cannot_be_routed_is_refused(here: Served, path: str, body: dict[str, object]) -> None:
    assert (await here.client.post(path, json=body)).status_code == 400


async def test_an_unknown_user_leaves_with_all_that_was_logged(here: Served, tmp_path: Path) -> None:
    await here.client.post("/v1/route", json={"user_id": "zoe-zebra", "content": "bake bread"})
    exported = (await here.client.get("/v1/users/zoe-zebra/export")).json()
    assert "zoe-zebra" in json.dumps(exported)
    assert (await here.client.delete("/v1/users/zoe-zebra")).status_code == 200
    own = [path for path in tmp_path.rglob("topic_router/**/*") if path.is_file()]
    assert own
    assert all(b"zoe-zebra" not in path.read_bytes() for path in own)
