"""A chat turn in which the model calls tools: a model server that speaks the OpenAI API, the real modules, hosted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.errors import ConfigurationError
from modules.models.errors import ModelAnswerInvalid
from modules.text_chat.answer_chunks import TextDelta, ToolStep, TurnEnded, TurnStarted
from modules.text_chat.answer_tools import MOST_CALLS, ToolsInChat, offered_of, shown_of
from modules.tool_use.definition import definition_of
from tests.tool_use_parts import LoopbackServer, reply

pytest.importorskip("openai", reason="models on a server need the extra local-llm")

SHORTEN = "python:textwrap:shorten"
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "width": {"type": "integer"}},
    "required": ["text", "width"],
}


def call(name: str, arguments: str, id: str = "c1", index: int = 0) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"delta": {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}}


def text(words: str) -> dict[str, Any]:
    return {"delta": {"content": words}}


def end(reason: str) -> dict[str, Any]:
    return {"delta": {}, "finish_reason": reason}


class ModelServer(LoopbackServer):
    """Answers with its *rounds* in turn, the last one again and again. ``asked`` holds the requests."""

    def __init__(self, *rounds: list[dict[str, Any]]) -> None:
        super().__init__(self._next)
        self._rounds = list(rounds)
        self.asked: list[dict[str, Any]] = []

    def _next(self, request: str) -> bytes:
        self.asked.append(json.loads(request.partition("\r\n\r\n")[2]))
        choices = self._rounds[min(len(self.asked), len(self._rounds)) - 1]
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, **one}]} for one in choices]
        chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}})
        events = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
        return reply(200, events.encode(), "text/event-stream")


@asynccontextmanager
async def chatting(base: Path, model: ModelServer, **tool_use: Any) -> AsyncIterator[Platform]:
    section = {"provider": "test", "model": "m", "base_url": f"http://{model.where}/v1", "timeout_seconds": 5.0}
    settings = {
        "modules": {
            "text_chat": {"enabled": True, "model": section, "rate_limit": {"messages_per_minute": None}},
            "tool_use": {"enabled": True, "python_tools": ["textwrap:shorten", "time:sleep"], **tool_use},
        }
    }
    platform = await Platform.start(settings, base=base, runtime=LocalRuntime(copies=True))
    try:
        await platform.ref("tool_use").ask("register_tool", "shorten", SHORTEN, SCHEMA)
        yield platform
    finally:
        await platform.stop()


async def ask(platform: Platform, words: str = "Shorten it", **session: Any) -> tuple[list[Any], Any]:
    """The chunks of a turn in a new session, and that session."""
    chat = platform.ref("text_chat")
    made = await chat.ask("create_session", "ann", metadata=session)
    chunks = [one async for one in chat.stream("stream_response", made.id, words, user_id="ann")]
    return chunks, made


async def stored(platform: Platform, session: Any) -> list[Any]:
    messages: list[Any] = await platform.ref("text_chat").ask("get_messages", session.id, user_id="ann")
    return messages


CALLING = [text("Let me see. "), call("shorten", '{"text": "a   b", '), end("tool_calls")]
ARGUMENTS = {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"width": 5}'}}]}}
CALLING.insert(2, ARGUMENTS)
SAYING = [text("It is: "), text("a b"), end("stop")]


async def test_a_model_calls_a_tool_and_answers_with_what_it_gave(tmp_path: Path) -> None:
    async with ModelServer(CALLING, SAYING) as model, chatting(tmp_path, model) as platform:
        chunks, session = await ask(platform)
        question, step, result, answer = await stored(platform, session)
    first, second = model.asked
    assert first["tools"] == [
        {"type": "function", "function": {"name": "shorten", "description": "", "parameters": SCHEMA}}
    ]
    assert second["messages"][-2:] == [
        {
            "role": "assistant",
            "content": "Let me see. ",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "shorten", "arguments": '{"text": "a   b", "width": 5}'},
                }
            ],
        },
        {"role": "tool", "content": "a b", "tool_call_id": "c1"},
    ]
    assert chunks == [
        TurnStarted(question),
        TextDelta("Let me see. "),
        ToolStep(step),
        ToolStep(result),
        TextDelta("It is: "),
        TextDelta("a b"),
        TurnEnded(answer, "stop"),
    ]
    assert (step.role, step.content, step.parent_id) == ("assistant", "Let me see. ", question.id)
    assert step.metadata["tool_calls"][0]["name"] == "shorten"
    assert (result.role, result.content, result.parent_id) == ("tool", "a b", step.id)
    assert result.metadata["tool_call_id"] == "c1"
    assert result.metadata["ok"] is True
    assert (answer.content, answer.parent_id, answer.metadata["finish_reason"]) == ("It is: a b", question.id, "stop")


async def test_earlier_calls_are_not_shown_again_and_the_answer_is(tmp_path: Path) -> None:
    async with ModelServer(CALLING, SAYING) as model, chatting(tmp_path, model) as platform:
        _, session = await ask(platform)
        chat = platform.ref("text_chat")
        async for _ in chat.stream("stream_response", session.id, "And now?", user_id="ann"):
            pass
    roles = [(one["role"], one["content"]) for one in model.asked[-1]["messages"][1:]]
    assert roles == [
        ("user", "Shorten it"),
        ("assistant", "Let me see. "),
        ("assistant", "It is: a b"),
        ("user", "And now?"),
    ]


async def test_the_same_request_again_gets_the_answer_and_not_the_calls(tmp_path: Path) -> None:
    async with ModelServer(CALLING, SAYING) as model, chatting(tmp_path, model) as platform:
        chat = platform.ref("text_chat")
        session = await chat.ask("create_session", "ann")
        for _ in range(2):
            stream = chat.stream("stream_response", session.id, "Hi", user_id="ann", idempotency_key="k")
            chunks = [one async for one in stream]
    assert chunks[0].is_replay
    assert chunks[1:] == [TextDelta("It is: a b"), TurnEnded(chunks[-1].message, "stop")]
    assert len(model.asked) == 2


async def test_several_calls_are_made_at_once_and_given_back_in_order(tmp_path: Path) -> None:
    calling = [call("nap", '{"s": 0.3}', f"c{n}", n) for n in range(4)]
    async with ModelServer([*calling, end("tool_calls")], SAYING) as model, chatting(tmp_path, model) as platform:
        tools = platform.ref("tool_use")
        await tools.ask("register_tool", "nap", "python:time:sleep")
        await tools.ask("register_tool", "shorten", SHORTEN, SCHEMA)
        chunks, _ = await ask(platform)
    ids = [chunk.message.metadata["tool_call_id"] for chunk in chunks if isinstance(chunk, ToolStep)
           and chunk.message.role == "tool"]  # fmt: skip
    assert ids == ["c0", "c1", "c2", "c3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("shorten", '{"text": ', "Error (invalid_arguments): the arguments are not JSON"),
        ("shorten", '{"text": "x"}', "'width' is a required property"),
        ("shorten", "[]", "parameters must be an object"),
        ("shorten", '{"text": "long enough", "width": 1}', "placeholder too large"),
        ("no_such_tool", "{}", "Error (not_found): no tool 'no_such_tool'"),
        ("../../etc", "{}", "Error (invalid_request)"),
    ],
)
async def test_a_call_that_fails_is_told_to_the_model_which_goes_on(
    tmp_path: Path, name: str, arguments: str, said: str
) -> None:
    rounds = [call(name, arguments), end("tool_calls")]
    async with ModelServer(rounds, SAYING) as model, chatting(tmp_path, model) as platform:
        chunks, _ = await ask(platform)
    assert said in model.asked[1]["messages"][-1]["content"]
    failed = chunks[2].message
    assert failed.metadata["ok"] is False
    assert isinstance(chunks[-1], TurnEnded)
    assert chunks[-1].message.content == "It is: a b"


async def test_a_model_that_calls_without_end_is_told_to_answer_and_then_given_up(tmp_path: Path) -> None:
    calling = [call("shorten", '{"text": "a", "width": 5}'), end("tool_calls")]
    async with ModelServer(calling) as model, chatting(tmp_path, model, chat={"max_rounds": 2}) as platform:
        with pytest.raises(ModelAnswerInvalid, match="told to answer"):
            await ask(platform)
    assert [one.get("tool_choice") for one in model.asked] == [None, None, "none"]
    assert len(model.asked[-1]["messages"]) == 2 + 2 * 2


async def test_more_calls_than_allowed_at_a_time_are_answered_with_a_refusal(tmp_path: Path) -> None:
    many = [call("shorten", '{"text": "a", "width": 5}', f"c{n}", n) for n in range(MOST_CALLS + 1)]
    async with ModelServer([*many, end("tool_calls")], SAYING) as model, chatting(tmp_path, model) as platform:
        await ask(platform)
    results = [one["content"] for one in model.asked[1]["messages"] if one["role"] == "tool"]
    assert results == ["a"] * MOST_CALLS + [f"Error (too_many): at most {MOST_CALLS} calls at a time"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("session", "names"),
    [({}, ["shorten"]), ({"tools": ["hidden"]}, ["hidden"]), ({"tools": []}, None), ({"tools": False}, None)],
)
async def test_a_session_says_which_tools_it_wants(tmp_path: Path, session: Any, names: list[str] | None) -> None:
    async with ModelServer(SAYING) as model, chatting(tmp_path, model) as platform:
        tools = platform.ref("tool_use")
        await tools.ask("register_tool", "hidden", SHORTEN, metadata={"offered": False})
        await tools.ask("register_tool", "bobs", SHORTEN, user_id="bob")
        await ask(platform, **session)
    offered = model.asked[0].get("tools")
    assert (offered and [one["function"]["name"] for one in offered]) == names


async def test_with_no_rounds_no_tool_is_offered(tmp_path: Path) -> None:
    async with ModelServer(SAYING) as model, chatting(tmp_path, model, chat={"max_rounds": 0}) as platform:
        await ask(platform)
    assert "tools" not in model.asked[0]


async def test_another_users_tools_cannot_be_called(tmp_path: Path) -> None:
    rounds = [call("bobs", '{"text": "x", "width": 5}'), end("tool_calls")]
    async with ModelServer(rounds, SAYING) as model, chatting(tmp_path, model) as platform:
        await platform.ref("tool_use").ask("register_tool", "bobs", SHORTEN, user_id="bob")
        await ask(platform)
    assert model.asked[1]["messages"][-1]["content"] == "Error (not_found): no tool 'bobs'"


async def test_a_reader_that_leaves_during_a_call_does_not_wait_for_it(tmp_path: Path) -> None:
    rounds = [text("One moment"), call("nap", "{}"), end("tool_calls")]
    async with ModelServer(rounds, SAYING) as model, chatting(tmp_path, model) as platform:
        is_called, go_on = asyncio.Event(), asyncio.Event()

        async def nap() -> None:
            is_called.set()
            await go_on.wait()

        await use_function(platform, "nap", nap)
        chat = platform.ref("text_chat")
        session = await chat.ask("create_session", "ann")
        chunks = chat.stream("stream_response", session.id, "Hi", user_id="ann")
        async for chunk in chunks:
            if isinstance(chunk, ToolStep):
                break
        async with asyncio.timeout(5):
            await is_called.wait()
            await chunks.aclose()
        roles = [(one.role, one.content) for one in await stored(platform, session)]
        assert roles == [("user", "Hi"), ("assistant", "One moment")], "what was said before the call stays"
        go_on.set()


async def use_function(platform: Platform, name: str, function: Callable[..., Any]) -> None:
    """Register a function of this test with the hosted module."""
    runtime: Any = platform._connector
    runtime._hosts["tool_use-0"].host.module.add_function(f"test:{name}", function)
    await platform.ref("tool_use").ask("register_tool", name, f"python:test:{name}")


# -- decisions ---------------------------------------------------------------------------------------------------------


def test_offers_are_bounded_and_by_name_where_named() -> None:
    known = [definition_of(f"t{n}", SHORTEN, None, None, None, "") for n in range(10)]
    assert [tool.name for tool in offered_of(known, None, 3)] == ["t0", "t1", "t2"]
    assert [tool.name for tool in offered_of(known, ["t7", "nope", 5], 3)] == ["t7"]


def test_a_long_result_is_cut_for_the_model_and_says_so() -> None:
    assert shown_of({"a": "é"}, 10) == ('{"a": "é"}', False)
    shown, is_cut = shown_of("x" * 100, 10)
    assert is_cut
    assert shown == "x" * 40 + "\n[cut here; 60 more bytes]"


@pytest.mark.parametrize("wrong", [{"max_rounds": -1}, {"max_tools": 0}, {"max_result_tokens": True}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"tool_use\.chat"):
        ToolsInChat(**wrong)


async def test_a_session_without_room_for_the_calls_is_answered_without(tmp_path: Path) -> None:
    async with ModelServer(SAYING) as model:
        section = {"provider": "test", "model": "m", "base_url": f"http://{model.where}/v1"}
        settings = {
            "modules": {
                "text_chat": {"enabled": True, "model": section, "max_messages_per_session": MOST_CALLS + 2},
                "tool_use": {"enabled": True, "python_tools": ["textwrap:shorten"]},
            }
        }
        platform = await Platform.start(settings, base=tmp_path, runtime=LocalRuntime(copies=True))
        try:
            await platform.ref("tool_use").ask("register_tool", "shorten", SHORTEN, SCHEMA)
            await ask(platform)
        finally:
            await platform.stop()
    assert model.asked[0]["tool_choice"] == "none"
