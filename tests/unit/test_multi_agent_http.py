"""Agents and conversations over HTTP, answered by the model that quotes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modules.core.clock import new_hex
from serve.keys import KeyFile
from tests.served import Served, events_of, served, settings_of

MODULES = ("text_chat", "multi_agent")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, names=MODULES) as running:
        yield running


async def registered(here: Served, *names: str, **more: Any) -> list[str]:
    for name in names:
        body = {"agent_id": name, "capabilities": ["talk"], "metadata": {"name": name.title()}, **more}
        answer = await here.client.post("/v1/agents", json=body)
        assert answer.status_code == 201, answer.text
    return list(names)


async def begun(here: Served, agents: list[str], headers: Any = None, **more: Any) -> Any:
    body = {"topic": "Which pet?", "agent_ids": agents, "user_id": "ada", "max_turns": 2, **more}
    answer = await here.client.post("/v1/conversations", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def ended(here: Served, conversation_id: str) -> Any:
    async with asyncio.timeout(10):
        while (found := (await here.client.get(f"/v1/conversations/{conversation_id}")).json())["status"] == "running":
            await asyncio.sleep(0.02)
    return found


async def test_a_conversation_is_begun_read_gone_on_with_and_removed(here: Served) -> None:
    agents = await registered(here, "critic", "builder", user_id="ada")
    begun_one = await begun(here, agents, title="Pets")
    path = f"/v1/conversations/{begun_one['id']}"
    done = await ended(here, begun_one["id"])
    assert (done["title"], done["status"], done["reason"], done["turns"]) == ("Pets", "completed", "turns", 2)

    turns = (await here.client.get(f"{path}/turns", params={"limit": 2})).json()
    assert (turns["data"][0]["content"], turns["has_more"]) == ("Which pet?", True)
    said = await here.client.post(f"{path}/turns", json={"user_id": "ada", "content": "Mind the cost."})
    assert (said.status_code, said.json()["kind"]) == (201, "human")

    answer = await here.client.post(f"{path}/continue", json={"user_id": "ada", "message": "And fish?", "max_turns": 1})
    assert answer.status_code == 200
    assert (await ended(here, begun_one["id"]))["message_count"] == 6

    page = (await here.client.get("/v1/conversations", params={"user_id": "ada"})).json()
    assert page["first_id"] == begun_one["id"]
    assert (await here.client.delete(path, params={"user_id": "ada"})).json()["deleted"] is True
    assert (await here.client.get(path)).status_code == 404


async def test_a_conversation_is_followed_as_it_goes_on(here: Served) -> None:
    conversation = await begun(here, await registered(here, "critic"), max_turns=3)
    stream = here.begin("GET", f"/v1/conversations/{conversation['id']}/events?user_id=ada")
    assert await stream.status() == 200
    events = events_of(await stream.until(b"event: ended"))
    assert [name for name, _ in events] == ["turn"] * 4 + ["ended"]
    assert events[-1][1]["reason"] == "turns"
    later = here.begin("GET", f"/v1/conversations/{conversation['id']}/events?after={events[2][1]['id']}")
    assert await later.status() == 200
    assert len(events_of(await later.until(b"event: ended"))) == 2


async def test_the_same_start_with_a_key_is_one_conversation(here: Served) -> None:
    agents = await registered(here, "critic")
    first = await begun(here, agents, {"Idempotency-Key": "k"})
    assert (await begun(here, agents, {"Idempotency-Key": "k"}))["id"] == first["id"]


async def test_a_consensus_leaves_a_decision(here: Served) -> None:
    agents = await registered(here, "critic", "builder")
    conversation = await begun(here, agents, strategy="consensus", agreement="likeness", max_turns=10)
    done = await ended(here, conversation["id"])
    assert done["reason"] == "consensus", "the model that quotes says the same whoever asks"
    (decision,) = (await here.client.get(f"/v1/conversations/{conversation['id']}/decisions")).json()["data"]
    assert decision["content"] == done["decision"]["content"]


async def test_agents_are_listed_with_those_for_everybody_and_removed_by_their_owner(here: Served) -> None:
    await registered(here, "shared")
    await registered(here, "own", user_id="ada")
    page = (await here.client.get("/v1/agents", params={"user_id": "ada", "capability": "talk"})).json()
    assert [(one["id"], one["user_id"]) for one in page["data"]] == [("own", "ada"), ("shared", None)]
    assert (await here.client.delete("/v1/agents/shared", params={"user_id": "ada"})).status_code == 404
    assert (await here.client.delete("/v1/agents/own", params={"user_id": "ada"})).status_code == 200
    assert (await here.client.get("/v1/agents/own", params={"user_id": "ada"})).status_code == 404


async def test_agents_answer_a_message_and_work_on_a_task(here: Served) -> None:
    agents = await registered(here, "critic", "builder")
    message = {"user_id": "ada", "agent_ids": agents, "message": "hello"}
    answers = (await here.client.post("/v1/agent-messages", json=message)).json()
    assert [one["status"] for one in answers["answers"]] == ["complete", "complete"]
    task = {"user_id": "ada", "task": "name it", "required_capabilities": ["talk"], "wait_seconds": 10}
    answer = await here.client.post("/v1/agent-tasks", json=task)
    assert answer.status_code == 201
    assert answer.json()["conversation"]["reason"] == "answered"
    assert answer.json()["answer"] == answer.json()["turns"][-1]["content"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/agents", {"agent_id": "a", "metadata": {"base_url": "http://10.0.0.1"}}, 400),
        ("/v1/agents", {"agent_id": "a", "colour": "blue"}, 400),
        ("/v1/conversations", {"topic": "t", "agent_ids": ["nobody"]}, 404),
        ("/v1/conversations", {"topic": "t", "agent_ids": []}, 400),
        ("/v1/conversations", {"topic": "t", "agent_ids": ["critic"], "termination": {"moon": 1}}, 400),
        ("/v1/conversations", {"topic": "t", "agent_ids": ["critic"], "max_turns": 0}, 400),
        ("/v1/conversations", {"topic": "t", "agent_ids": ["critic"], "options": ["a", "b"]}, 400),
        ("/v1/agent-tasks", {"task": "t", "required_capabilities": ["dance"]}, 404),
        ("/v1/conversations/nothing/cancel", {}, 404),
        ("/v1/conversations/..%2F..%2Fetc/continue", {}, 404),
    ],
)
async def test_what_cannot_be_is_refused(here: Served, path: str, body: dict[str, Any], status: int) -> None:
    await registered(here, "critic")
    answer = await here.client.post(path, json=body)
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


async def test_going_on_with_what_is_under_way_is_a_conflict(here: Served) -> None:
    conversation = await begun(here, await registered(here, "critic"), max_turns=1000)
    path = f"/v1/conversations/{conversation['id']}"
    assert (await here.client.post(f"{path}/continue", json={})).status_code == 409
    assert (await here.client.post(f"{path}/cancel", json={})).json()["status"] == "cancelled"


async def test_a_key_of_one_user_reaches_nothing_of_another_and_nothing_of_everybody(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    made = {"now": datetime.now(UTC), "new_id": new_hex, "new_secret": lambda: (new_hex() * 2)[:43]}
    _, admin = keys.create("boss", ("user", "admin"), None, **made)
    _, bound = keys.create("ada", ("user",), "ada", **made)
    settings = settings_of(http={"api_keys_file": str(tmp_path / "keys.json")})
    (tmp_path / "base").mkdir()
    async with served(tmp_path / "base", settings, names=MODULES) as here:
        here.client.headers["Authorization"] = f"Bearer {admin}"
        await registered(here, "shared")
        theirs = await begun(here, ["shared"], user_id="bob")
        nobodys = await begun(here, ["shared"], user_id=None)
        here.client.headers["Authorization"] = f"Bearer {bound}"
        for conversation in (theirs, nobodys):
            assert (await here.client.get(f"/v1/conversations/{conversation['id']}")).status_code == 404
        assert (await here.client.post("/v1/agents", json={"agent_id": "x", "user_id": "bob"})).status_code == 403
        mine = (await here.client.post("/v1/agents", json={"agent_id": "x"})).json()
        assert mine["user_id"] == "ada"
        assert (await here.client.get("/v1/conversations")).json()["data"] == []
        assert (await here.client.get("/v1/conversations", params={"user_id": "bob"})).status_code == 403


async def test_erasing_a_user_reaches_agents_and_conversations(here: Served) -> None:
    agents = await registered(here, "critic", user_id="ada")
    conversation = await begun(here, agents)
    exported = (await here.client.get("/v1/users/ada/export")).json()
    assert exported["modules"]["multi_agent"]["conversations"][0]["id"] == conversation["id"]
    erased = (await here.client.delete("/v1/users/ada")).json()
    assert erased["modules"]["multi_agent"] == {"user_id": "ada", "agents": 1, "conversations": 1}
    assert (await here.client.get(f"/v1/conversations/{conversation['id']}")).status_code == 404
