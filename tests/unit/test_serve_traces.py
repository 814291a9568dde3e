"""Traces and the audit trail over HTTP, and requests as spans."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modules.core.clock import new_hex
from serve.keys import KeyFile
from tests.runtime_behaviour import until
from tests.served import Served, served, settings_of

NAMES = ("text_chat", "memory", "trace_logger")


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, names=NAMES) as running:
        yield running


async def trace_of(here: Served, traceresponse: str, *names: str) -> dict[str, Any]:
    trace_id = traceresponse.split("-")[1]
    found: list[dict[str, Any]] = []

    async def is_there() -> bool:
        answer = await here.client.get(f"/v1/traces/{trace_id}")
        if answer.status_code == 404:
            return False
        found.append(answer.json())
        return set(names) <= names_of(found[-1])

    await until(is_there, limit_s=10)
    return found[-1]


def names_of(trace: dict[str, Any]) -> set[str]:
    def below(node: dict[str, Any]) -> set[str]:
        return {node["name"]}.union(*map(below, node["children"]))

    return set().union(*map(below, trace["roots"]))


async def test_a_chat_request_is_one_trace_from_its_route_to_the_model(here: Served) -> None:
    session = await here.session()
    answer = await here.client.post(f"/v1/sessions/{session}/messages", json={"user_id": "ada", "content": "Hello?"})
    assert answer.status_code == 201
    route = "POST /v1/sessions/{session_id}/messages"
    trace = await trace_of(here, answer.headers["traceresponse"], "chat extractive", "memory.get_context_window", route)
    (root,) = trace["roots"]
    assert root["name"] == route
    assert root["attributes"]["http.response.status_code"] == 201
    assert root["attributes"]["modchat.request_id"] == answer.headers["x-request-id"]
    assert session not in root["name"]
    assert {"text_chat.stream_response", "turn", "store message", "chat extractive"} <= names_of(trace)


async def test_a_streamed_answer_is_measured_to_its_end(here: Served) -> None:
    session = await here.session()
    body = {"user_id": "ada", "content": "Hello?", "stream": True}
    async with here.client.stream("POST", f"/v1/sessions/{session}/messages", json=body) as answer:
        await answer.aread()
    trace = await trace_of(
        here, answer.headers["traceresponse"], "chat extractive", "POST /v1/sessions/{session_id}/messages"
    )
    (root,) = trace["roots"]
    assert root["duration_ns"] >= root["children"][0]["duration_ns"]


async def test_a_request_goes_on_with_its_senders_trace(here: Served) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    answer = await here.client.get("/v1/sessions", params={"user_id": "ada"}, headers=headers)
    assert answer.headers["traceresponse"].split("-")[1] == "a" * 32
    trace = await trace_of(here, answer.headers["traceresponse"], "GET /v1/sessions")
    assert (trace["roots"][0]["is_orphan"], trace["roots"][0]["parent_id"]) == (True, "b" * 16)


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{'b' * 16}-01", "x" * 5000])
async def test_a_context_that_is_none_begins_a_trace_of_its_own(here: Served, traceparent: str) -> None:
    answer = await here.client.get("/v1/sessions", params={"user_id": "ada"}, headers={"traceparent": traceparent})
    assert answer.status_code == 200
    assert len(answer.headers["traceresponse"].split("-")[1]) == 32


async def test_machines_that_ask_how_it_is_leave_no_traces(here: Served) -> None:
    for path in ("/health", "/ready", "/metrics"):
        assert "traceresponse" not in (await here.client.get(path)).headers


async def test_what_a_layer_refuses_is_no_failure(here: Served) -> None:
    answer = await here.client.post("/v1/sessions", content=b"x", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415
    trace = await trace_of(here, answer.headers["traceresponse"], "POST unmatched")
    (root,) = trace["roots"]
    assert (root["error"], root["attributes"]["http.response.status_code"]) == (None, 415)


async def test_traces_are_listed_and_measured(here: Served) -> None:
    missing = await here.client.get("/v1/sessions/none", params={"user_id": "ada"})
    assert missing.status_code == 404

    async def is_listed() -> bool:
        page = (await here.client.get("/v1/traces", params={"operation": "GET /v1/sessions/{session_id}"})).json()
        return len(page["data"]) == 1 and page["data"][0]["error"] is None

    await until(is_listed, limit_s=10)
    page = (await here.client.get("/v1/traces", params={"limit": 1})).json()
    assert (len(page["data"]), page["has_more"], page["first_id"]) == (1, True, page["data"][0]["id"])
    report = (await here.client.get("/v1/traces/performance", params={"since": "1h"})).json()
    assert "text_chat.get_session" in {one["operation"] for one in report["operations"]}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/traces/nonsense",
        "/v1/traces?since=yesterday",
        "/v1/traces?start=x",
        "/v1/traces?limit=0",
        "/v1/traces?colour=blue",
        "/v1/traces/performance?since=1y",
        "/v1/audit?before=0",
        "/v1/audit/verify?expect=nonsense",
    ],
)
async def test_what_makes_no_sense_is_refused(here: Served, path: str) -> None:
    answer = await here.client.get(path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_the_audit_trail_is_listed_and_checked(here: Served) -> None:
    logger = here.platform.ref("trace_logger")
    for number in range(3):
        await logger.ask("create_audit_entry", "tool.execute", "ada", f"tool:{number}", {"n": number})
    page = (await here.client.get("/v1/audit", params={"user_id": "ada", "limit": 2})).json()
    assert ([one["seq"] for one in page["data"]], page["has_more"], page["last_id"]) == ([3, 2], True, 2)
    rest = (await here.client.get("/v1/audit", params={"before": page["last_id"]})).json()
    assert [one["details"] for one in rest["data"]] == [{"n": 0}]
    report = (await here.client.get("/v1/audit/verify")).json()
    assert (report["is_intact"], report["entries"]) == (True, 3)
    again = await here.client.get("/v1/audit/verify", params={"expect": report["head"]})
    assert again.json()["is_intact"] is True


async def test_who_is_no_administrator_sees_neither(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    made = {"now": datetime.now(UTC), "new_id": new_hex, "new_secret": lambda: (new_hex() * 2)[:43]}
    _, shown = keys.create("ada's", ("user",), "ada", **made)  # type: ignore[arg-type]
    settings = settings_of(http={"api_keys_file": str(keys.path)})
    (tmp_path / "base").mkdir()
    async with served(tmp_path / "base", settings, names=NAMES) as here:
        headers = {"authorization": f"Bearer {shown}"}
        for path in ("/v1/traces", "/v1/traces/performance", f"/v1/traces/{'a' * 32}", "/v1/audit", "/v1/audit/verify"):
            assert (await here.client.get(path, headers=headers)).status_code == 403


async def test_an_erased_user_is_named_nowhere_although_the_erasure_is_on_record(here: Served) -> None:
    session = await here.session("zebedee-the-first")
    body = {"user_id": "zebedee-the-first", "content": "my diary"}
    await here.client.post(f"/v1/sessions/{session}/messages", json=body)
    await here.platform.ref("trace_logger").ask("create_audit_entry", "a.b", "zebedee-the-first", "r")
    erased = await here.client.delete("/v1/users/zebedee-the-first")
    assert erased.status_code == 200, erased.text
    audit = (await here.client.get("/v1/audit")).json()
    assert any(entry["action"].startswith("user.erase") for entry in audit["data"])
    assert (await here.client.get("/v1/audit/verify")).json()["is_intact"] is True
    root = here.platform.base / "trace_logger"
    for path in root.rglob("*"):
        assert b"zebedee" not in path.name.encode()
        assert path.is_dir() or b"zebedee" not in path.read_bytes(), path


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/audit"])
async def test_a_page_may_be_as_long_as_the_settings_let_it(here: Served, path: str) -> None:
    assert (await here.client.get(path, params={"limit": 1000})).status_code == 200
    assert (await here.client.get(path, params={"limit": 1001})).status_code == 400


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/traces", {"since": "soon"}),
        ("/v1/traces", {"start": "yesterday"}),
        ("/v1/traces", {"end": "2024-01-15T10:00:00Z"}),
        ("/v1/traces/performance", {"start": "0001-01-01T00:00:00+14:00"}),
        ("/v1/traces/%C3%BC", {}),
        ("/v1/audit/verify", {"expect": "1:x"}),
    ],
)
async def test_what_cannot_be_meant_is_refused(here: Served, path: str, query: dict[str, str]) -> None:
    answer = await here.client.get(path, params=query)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
