"""OpenAI's API: what it takes, what it gives, and what it refuses as OpenAI would."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from modules.models.errors import ContextTooLong, ModelBusy
from modules.models.protocols import Delta, ToolCall, Usage
from serve.chat_request import ChatRequest
from tests.served import Served, events_of, served, settings_of

PATH = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "script", "messages": [{"role": "user", "content": "hello"}]}
TOOL = {"type": "function", "function": {"name": "clock", "description": "Tells the time."}}
NAMED = {"type": "function", "function": {"name": "nothing_of_that_name"}}


class Script:
    """A model that says what it is told to, and notes what it was asked."""

    name = "script"
    context_window = 100
    can_call_tools = True

    def __init__(self) -> None:
        last = Delta(finish_reason="stop", usage=Usage(3, 2))
        self.deltas: list[Delta | Exception] = [Delta("Hel"), Delta("lo"), last]
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.is_held = False
        self.was_stopped = asyncio.Event()

    async def load(self) -> None: ...

    async def stream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta, None]:
        self.asked.append((messages, options))
        try:
            for one in self.deltas:
                if isinstance(one, Exception):
                    raise one
                yield one
                if self.is_held:
                    await asyncio.sleep(3600)
        except (asyncio.CancelledError, GeneratorExit):
            self.was_stopped.set()
            raise

    def count_tokens(self, prompt: Any) -> int:
        return 1

    async def close(self) -> None: ...


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    model = Script()
    monkeypatch.setattr("modules.models.choose.ExtractiveChat", lambda: model)
    return model


@pytest.fixture
async def here(tmp_path: Path, script: Script) -> AsyncIterator[Served]:
    async with served(tmp_path) as running:
        yield running


async def error(here: Served, **body: Any) -> tuple[int, str, str | None]:
    answer = await here.client.post(PATH, json={**HELLO, **body})
    found = answer.json()["error"]
    return answer.status_code, found["code"], found["param"]


async def test_a_conversation_is_answered_and_nothing_is_stored(here: Served) -> None:
    answer = (await here.client.post(PATH, json=HELLO)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert not list(here.platform.base.rglob("messages.jsonl"))


async def test_what_is_asked_for_reaches_the_model(here: Served, script: Script) -> None:
    body = {
        "model": "script",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        ],
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "stop": "END",
        "seed": 5,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "clock"}},
        "n": 1,
        "top_p": 1,
        "presence_penalty": 0,
        "logprobs": False,
        "response_format": {"type": "text"},
    }
    assert (await here.client.post(PATH, json=body)).status_code == 200
    (messages, options) = script.asked[0]
    assert [(one.role, one.content) for one in messages] == [
        ("system", "Be brief."),
        ("user", "ab"),
        ("assistant", ""),
        ("tool", "noon"),
    ]
    assert messages[2].tool_calls == (ToolCall("c1", "clock", "{}"),)
    assert (options["max_tokens"], options["temperature"], options["stop"], options["seed"]) == (7, 0.5, ("END",), 5)
    assert ([one.name for one in options["tools"]], options["tool_choice"]) == (["clock"], "clock")


async def test_calls_of_tools_come_out_whole_and_streamed(here: Served, script: Script) -> None:
    script.deltas = [Delta(finish_reason="tool_calls", usage=Usage(3, 2), tool_calls=(ToolCall("c1", "clock", "{}"),))]
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    whole = (await here.client.post(PATH, json={**HELLO, "tools": [TOOL]})).json()["choices"][0]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)
    assert whole["message"]["tool_calls"] == [call]
    streamed = await here.client.post(PATH, json={**HELLO, "tools": [TOOL], "stream": True})
    deltas = [data["choices"][0]["delta"] for _, data in events_of(streamed.content)[:-1]]
    assert {"tool_calls": [{"index": 0, **call}]} in deltas


async def test_a_stream_is_chunks_then_done(here: Served) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    events = events_of((await here.client.post(PATH, json=body)).content)
    assert events[-1] == (None, "[DONE]")
    chunks = [data for _, data in events[:-1]]
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    assert len({one["id"] for one in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks[:-1]) == "Hello"
    assert [one["choices"][0]["finish_reason"] for one in chunks[:-1]][-1] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 5)
    assert all(one["usage"] is None for one in chunks[:-1])


async def test_a_stream_without_the_wish_has_no_usage(here: Served) -> None:
    events = events_of((await here.client.post(PATH, json={**HELLO, "stream": True})).content)
    assert all("usage" not in data for _, data in events[:-1])


async def test_a_reader_that_goes_away_stops_the_model(here: Served, script: Script) -> None:
    script.is_held = True
    stream = here.begin("POST", PATH, {**HELLO, "stream": True})
    await stream.status()
    await stream.until(b'"Hel"')
    stream.leave()
    await stream.ended()
    assert script.was_stopped.is_set()


async def test_a_caller_of_a_whole_answer_that_goes_away_stops_the_model(here: Served, script: Script) -> None:
    script.is_held = True
    waiting = here.begin("POST", PATH, HELLO)
    while not script.asked:
        await asyncio.sleep(0.01)
    waiting.leave()
    await waiting.ended()
    assert script.was_stopped.is_set()


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"model": "gpt-4o"}, 404, "not_found", None),
        ({"foo": 1}, 400, "unknown_parameter", "foo"),
        ({"reasoning_effort": "high"}, 400, "unsupported_parameter", "reasoning_effort"),
        ({"functions": []}, 400, "unsupported_parameter", "functions"),
        ({"n": 2}, 400, "invalid_request", "n"),
        ({"top_p": 0.5}, 400, "invalid_request", "top_p"),
        ({"logprobs": True}, 400, "invalid_request", "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "invalid_request", "response_format.type"),
        ({"temperature": 3}, 400, "invalid_request", "temperature"),
        ({"messages": []}, 400, "invalid_request", "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "invalid_request", "messages[0]"),
        ({"messages": [{"role": "user"}]}, 400, "missing_required_parameter", "messages[0].content"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, 400, "invalid_request", "max_tokens"),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_request", "stream_options"),
        ({"tool_choice": "auto"}, 400, "invalid_request", "tool_choice"),
        ({"tools": [TOOL], "tool_choice": NAMED}, 400, "invalid_request", None),
        ({"tools": [TOOL], "parallel_tool_calls": False}, 400, "invalid_request", "parallel_tool_calls"),
        ({"user": "a", "safety_identifier": "b"}, 400, "invalid_request", "safety_identifier"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "invalid_request", None),
    ],
)
async def test_what_cannot_be_done_is_refused_and_not_ignored(
    here: Served, script: Script, body: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    found = await error(here, **body)
    assert found[:2] == (status, code)
    assert param is None or found[2] == param
    assert not script.asked


async def test_tools_for_a_model_that_calls_none_are_refused_and_none_of_them_are_not(
    here: Served, script: Script
) -> None:
    script.can_call_tools = False
    assert await error(here, tools=[TOOL]) == (400, "invalid_request", "tools")
    assert (await here.client.post(PATH, json={**HELLO, "tools": [TOOL], "tool_choice": "none"})).status_code == 200
    assert "tools" not in script.asked[0][1]


async def test_parameters_that_openai_knows_may_be_null(here: Served) -> None:
    body = {**HELLO, "reasoning_effort": None, "stop": None, "tools": None, "n": None, "user": None}
    assert (await here.client.post(PATH, json=body)).status_code == 200


async def test_a_prompt_that_is_too_long_is_a_400_with_openais_code(here: Served, script: Script) -> None:
    script.deltas = [ContextTooLong("too long", tokens=200, limit=100)]
    assert await error(here) == (400, "context_length_exceeded", "messages")
    assert await error(here, stream=True) == (400, "context_length_exceeded", "messages")


async def test_a_model_that_is_busy_says_when_to_come_back(here: Served, script: Script) -> None:
    script.deltas = [ModelBusy("busy", retry_after_s=120)]
    answer = await here.client.post(PATH, json=HELLO)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "120")


async def test_what_fails_in_the_middle_of_a_stream_is_an_event_that_the_sdk_raises(
    here: Served, script: Script
) -> None:
    script.deltas = [Delta("Hel"), ModelBusy("busy", retry_after_s=120)]
    events = events_of((await here.client.post(PATH, json={**HELLO, "stream": True})).content)
    assert events[-1][1]["error"]["code"] == "model_busy"


async def test_what_a_user_has_asked_counts_as_theirs(tmp_path: Path, script: Script) -> None:
    rates = {"rate_limit": {"messages_per_minute": 1}, "model": {"provider": "extractive"}}
    async with served(tmp_path, settings_of(modules={"text_chat": rates})) as here:
        assert (await here.client.post(PATH, json={**HELLO, "user": "ada"})).status_code == 200
        assert (await here.client.post(PATH, json={**HELLO, "safety_identifier": "ada"})).status_code == 429
        assert (await here.client.post(PATH, json={**HELLO, "user": "bob"})).status_code == 200
        assert (await here.client.post(PATH, json=HELLO)).status_code == 200


async def test_one_key_of_a_prompt_goes_to_one_process(tmp_path: Path, script: Script) -> None:
    settings = settings_of(modules={"text_chat": {"shards": 3, "model": {"provider": "extractive"}}})
    async with served(tmp_path, settings) as here:
        await here.client.get("/v1/models")
        before = await calls_of_chat(here)
        for _ in range(4):
            assert (await here.client.post(PATH, json={**HELLO, "prompt_cache_key": "k"})).status_code == 200
        grown = [now - then for now, then in zip(await calls_of_chat(here), before, strict=True)]
    assert sorted(grown) == [0, 0, 4]


async def calls_of_chat(here: Served) -> list[int]:
    parts = (await here.platform.health()).parts
    return [part.report.calls.calls for part in parts if part.module == "text_chat" and part.report]


async def test_the_models_are_those_that_answer_and_embed(here: Served) -> None:
    models = (await here.client.get("/v1/models")).json()["data"]
    assert [one["id"] for one in models] == ["script", "wordllama"]
    assert (await here.client.get("/v1/models/script")).json() == models[0]
    assert (await here.client.get("/v1/models/gpt-4o")).status_code == 404


async def test_embeddings_are_of_unit_length_in_either_encoding(here: Served) -> None:
    body = {"model": "wordllama", "input": ["a shard", "a key"]}
    floats = (await here.client.post("/v1/embeddings", json=body)).json()
    packed = (await here.client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
    rows = [one["embedding"] for one in floats["data"]]
    assert [sum(x * x for x in row) for row in rows] == pytest.approx([1, 1], abs=1e-4)
    data = base64.b64decode(packed["data"][1]["embedding"])
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == pytest.approx(rows[1], abs=1e-6)
    assert [one["index"] for one in floats["data"]] == [0, 1]
    assert floats["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "script", "input": "x"}, 404),
        ({"model": "wordllama", "input": ""}, 400),
        ({"model": "wordllama", "input": []}, 400),
        ({"model": "wordllama", "input": [1, 2]}, 400),
        ({"model": "wordllama", "input": "x", "dimensions": 257}, 400),
        ({"model": "wordllama", "input": "x", "encoding_format": "hex"}, 400),
    ],
)
async def test_embeddings_that_cannot_be_are_refused(here: Served, body: dict[str, Any], status: int) -> None:
    assert (await here.client.post("/v1/embeddings", json=body)).status_code == status


async def test_where_nothing_embeds_embeddings_say_so_and_models_go_on(tmp_path: Path, script: Script) -> None:
    settings = settings_of(modules={"rag": {"embedding": {"provider": "none"}}})
    async with served(tmp_path, settings) as here:
        answer = await here.client.post("/v1/embeddings", json={"model": "wordllama", "input": "x"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "module_not_found")
        assert [one["id"] for one in (await here.client.get("/v1/models")).json()["data"]] == ["script"]


def test_answers_of_the_sdk_may_be_given_back_as_they_came() -> None:
    given = {"role": "assistant", "content": "Hello", "refusal": None, "annotations": None, "audio": None}
    request = ChatRequest.model_validate({"model": "m", "messages": [given, {"role": "user", "content": "more"}]})
    assert request.prompt()[0].content == "Hello"
