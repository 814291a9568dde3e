"""Tools over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modules.core.clock import new_hex
from serve.keys import KeyFile
from tests.served import Served, served, settings_of
from tests.tool_use_parts import LoopbackServer, json_reply, reply

SHORTEN = {
    "user_id": "ada",
    "tool_name": "shorten",
    "endpoint": "python:textwrap:shorten",
    "input_schema": {"type": "object", "properties": {"width": {"type": "integer"}}, "required": ["text", "width"]},
    "metadata": {"description": "Shortens.", "capabilities": ["words"]},
}
WORDS = {"text": "a   b", "width": 9}


@pytest.fixture
async def outside() -> AsyncIterator[LoopbackServer]:
    def answer(request: str) -> bytes:
        return reply(418, b"short and stout", "text/plain") if "teapot" in request else json_reply({"ok": True})

    async with LoopbackServer(answer) as server:
        yield server


@pytest.fixture
async def here(tmp_path: Path, outside: LoopbackServer) -> AsyncIterator[Served]:
    section = {"python_tools": ["textwrap:shorten"], "internal_hosts": [outside.where]}
    async with served(tmp_path, settings_of(modules={"tool_use": section}), names=("tool_use",)) as running:
        yield running


async def posted(here: Served, path: str, body: dict[str, Any], status: int = 201) -> dict[str, Any]:
    answer = await here.client.post(path, json=body)
    assert answer.status_code == status, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def test_a_tool_is_registered_found_called_and_removed(here: Served) -> None:
    tool = await posted(here, "/v1/tools", SHORTEN)
    assert (tool["name"], tool["user_id"], tool["version"]) == ("shorten", "ada", 1)
    page = (await here.client.get("/v1/tools", params={"user_id": "ada", "capability": "words"})).json()
    assert [one["name"] for one in page["data"]] == ["shorten"]
    assert (await here.client.get("/v1/tools/shorten", params={"user_id": "ada"})).json() == tool
    result = await posted(here, "/v1/tools/shorten/execute", {"user_id": "ada", "parameters": WORDS}, 200)
    assert (result["output"], result["is_cut"], result["attempts"]) == ("a b", False, 1)
    assert (await here.client.delete("/v1/tools/shorten", params={"user_id": "bob"})).status_code == 404
    gone = await here.client.delete("/v1/tools/shorten", params={"user_id": "ada"})
    assert gone.json() == {"object": "deleted", "id": "shorten", "deleted": True}
    assert (await here.client.get("/v1/tools/shorten", params={"user_id": "ada"})).status_code == 404


async def test_another_user_neither_sees_nor_calls_it(here: Served) -> None:
    await posted(here, "/v1/tools", SHORTEN)
    assert (await here.client.get("/v1/tools", params={"user_id": "bob"})).json()["data"] == []
    await posted(here, "/v1/tools/shorten/execute", {"user_id": "bob", "parameters": WORDS}, 404)


async def test_parameters_are_checked_with_and_without_calling(here: Served) -> None:
    await posted(here, "/v1/tools", SHORTEN)
    for path, status in (("validate", 200), ("execute", 400)):
        said = await posted(here, f"/v1/tools/shorten/{path}", {"user_id": "ada", "parameters": {"text": "x"}}, status)
        assert "'width' is a required property" in str(said)
    said = await posted(here, "/v1/tools/shorten/validate", {"user_id": "ada", "parameters": WORDS}, 200)
    assert said == {"is_valid": True, "problems": []}


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [
        ("http://127.0.0.1:1/", "tool_address_refused"),
        ("http://169.254.169.254/latest/meta-data/", "tool_address_refused"),
        ("file:///etc/passwd", "invalid_request"),
        ("python:os:system", "invalid_request"),
        ("stdio:rm -rf /", "invalid_request"),
    ],
)
async def test_what_must_not_be_called_cannot_be_registered(here: Served, endpoint: str, code: str) -> None:
    said = await posted(here, "/v1/tools", {"user_id": "ada", "tool_name": "x", "endpoint": endpoint}, 400)
    assert (said["error"]["code"], said["error"]["param"]) == (code, "endpoint")


async def test_an_mcp_server_that_the_operator_did_not_name_is_not_there(here: Served) -> None:
    await posted(here, "/v1/tools", {"user_id": "ada", "tool_name": "x", "endpoint": "mcp:shell#run"}, 404)
    await posted(here, "/v1/tool_imports", {"user_id": "ada", "endpoint": "mcp:shell"}, 404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tools", {"tool_name": "x"}),
        ("/v1/tools", {**SHORTEN, "colour": "blue"}),
        ("/v1/tools", {**SHORTEN, "tool_name": "a b"}),
        ("/v1/tools", {**SHORTEN, "input_schema": {"type": "nothing"}}),
        ("/v1/tools", {**SHORTEN, "metadata": {"method": "TRACE"}}),
        ("/v1/tools/shorten/execute", {"user_id": "ada", "timeout": 0}),
        ("/v1/tools/shorten/execute", {"user_id": "ada", "parameters": [1]}),
        ("/v1/tool_chains", {"user_id": "ada", "tools": []}),
        ("/v1/tool_chains", {"user_id": "ada", "tools": [{"tool": "shorten", "input": {"x": "$previous"}}]}),
        ("/v1/tool_imports", {"user_id": "ada", "endpoint": "https://example.com/"}),
    ],
)
async def test_requests_that_make_no_sense_are_refused(here: Served, path: str, body: dict[str, Any]) -> None:
    await posted(here, "/v1/tools", SHORTEN)
    assert "error" in await posted(here, path, body, 400)


async def test_a_tool_that_says_no_is_told_from_a_server_that_fails(here: Served, outside: LoopbackServer) -> None:
    teapot = {"user_id": "ada", "tool_name": "teapot", "endpoint": f"http://{outside.where}/teapot"}
    await posted(here, "/v1/tools", teapot)
    said = await posted(here, "/v1/tools/teapot/execute", {"user_id": "ada"}, 502)
    assert said["error"]["code"] == "tool_failed"
    assert said["error"]["message"] == "the tool answers 418: short and stout"


async def test_of_everybodys_tool_users_see_no_secrets(here: Served, outside: LoopbackServer) -> None:
    about = {"headers": {"X-Key": "written-down"}, "method": "GET"}
    tool = {"tool_name": "all", "endpoint": f"http://{outside.where}/x?key=written-down", "metadata": about}
    await posted(here, "/v1/tools", tool)
    seen = await here.client.get("/v1/tools", params={"user_id": "ada"})
    assert "written-down" not in seen.text
    assert seen.json()["data"][0]["metadata"]["headers"] == {"X-Key": "***"}
    await posted(here, "/v1/tools/all/execute", {"user_id": "ada"}, 200)
    assert "written-down" in outside.requests[-1]


async def test_lists_come_in_pages(here: Served) -> None:
    for name in "abcde":
        await posted(here, "/v1/tools", {**SHORTEN, "tool_name": name})

    async def names(**query: Any) -> tuple[list[str], bool]:
        page = (await here.client.get("/v1/tools", params={"user_id": "ada", **query})).json()
        return [one["name"] for one in page["data"]], page["has_more"]

    assert await names(limit=2) == (["a", "b"], True)
    assert await names(limit=2, after="b") == (["c", "d"], True)
    assert await names(limit=9, after="d") == (["e"], False)
    assert await names(limit=2, before="d") == (["b", "c"], True)
    assert await names(limit=2, order="desc") == (["e", "d"], True)
    assert await names(limit=2, order="desc", after="d") == (["c", "b"], True)


async def test_a_chain_is_kept_run_and_removed(here: Served) -> None:
    await posted(here, "/v1/tools", SHORTEN)
    again = {"tool": "shorten", "name": "again", "input": {"text": "$previous", "width": 9}}
    chain = await posted(here, "/v1/tool_chains", {"user_id": "ada", "tools": ["shorten", again], "chain_id": "twice"})
    assert chain["name"] == "twice"
    result = await posted(here, "/v1/tool_chains/twice/execute", {"user_id": "ada", "parameters": WORDS}, 200)
    assert (result["ok"], result["output"]) == (True, "a b")
    failed = await posted(here, "/v1/tool_chains/twice/execute", {"user_id": "ada", "parameters": {}}, 200)
    assert (failed["ok"], failed["steps"][0]["error"]["code"]) == (False, "tool_parameters_invalid")
    assert len((await here.client.get("/v1/tool_chains", params={"user_id": "ada"})).json()["data"]) == 1
    assert (await here.client.get("/v1/tool_chains", params={"user_id": "bob"})).json()["data"] == []
    await posted(here, "/v1/tool_chains/twice/execute", {"user_id": "bob"}, 404)
    assert (await here.client.delete("/v1/tool_chains/twice", params={"user_id": "ada"})).status_code == 200
    assert (await here.client.delete("/v1/tool_chains/twice", params={"user_id": "ada"})).status_code == 404


@pytest.mark.slow
async def test_for_everybody_takes_an_administrator(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")

    def key(*scopes: str, user: str | None = None) -> dict[str, str]:
        _, shown = keys.create(
            "test", scopes, user, now=datetime.now(UTC), new_id=new_hex, new_secret=lambda: (new_hex() * 2)[:43]
        )
        return {"Authorization": f"Bearer {shown}"}

    admin, bound = key("admin"), key("user", user="ada")
    settings = settings_of({"api_keys_file": str(keys.path)}, {"tool_use": {"python_tools": ["textwrap:shorten"]}})
    base = tmp_path / "base"
    base.mkdir()
    tool = {**SHORTEN, "user_id": None}
    async with served(base, settings, names=("tool_use",)) as here:
        # A key that is bound to a user registers that user's, whatever it leaves out.
        assert (await here.client.post("/v1/tools", json=tool, headers=bound)).json()["user_id"] == "ada"
        answer = await here.client.post("/v1/tools", json={**tool, "user_id": "bob"}, headers=bound)
        assert answer.status_code == 403
        unbound = key("user")
        async with asyncio.timeout(10):
            while (await here.client.get("/v1/tools", headers=unbound)).status_code == 401:
                await asyncio.sleep(0.05)
        assert (await here.client.post("/v1/tools", json=tool, headers=unbound)).status_code == 403
        assert (await here.client.delete("/v1/tools/shorten", headers=unbound)).status_code == 403
        assert (await here.client.post("/v1/tools", json=tool, headers=admin)).json()["user_id"] is None
