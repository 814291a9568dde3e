"""All that text_chat keeps of a user: out, or gone; and conversations that it keeps nothing of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from modules.core.context import ModuleContext
from modules.core.errors import RateLimited, ValidationError
from modules.core.storage import FlatFileStorage
from modules.models.extractive import ExtractiveChat
from modules.models.protocols import Delta, PromptMessage, Tool, Usage
from modules.text_chat import TextChatModule

Start = Callable[..., Awaitable[TextChatModule]]


class Held(ExtractiveChat):
    """Says a word, and then nothing until it is stopped."""

    async def stream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta, None]:
        yield Delta("half")
        await asyncio.sleep(3600)


class Counting(ExtractiveChat):
    can_call_tools = True

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    async def stream(self, messages: Any, **options: Any) -> AsyncGenerator[Delta, None]:
        self.options = options
        yield Delta("one two")
        yield Delta(finish_reason="stop", usage=Usage(1, 40))


@pytest.fixture
def start(tmp_path: Path) -> Start:
    async def started(model: Any = None, **settings: Any) -> TextChatModule:
        module = TextChatModule(make_model=lambda _: model or ExtractiveChat())
        given = {"rate_limit": {"messages_per_minute": None, "tokens_per_minute": None}} | settings
        context = ModuleContext(storage=FlatFileStorage(tmp_path), settings={"text_chat": given})
        await module.initialize(context.named("text_chat"))
        return module

    return started


def lay_out(base: Path, user: str) -> None:
    """What a migration leaves of a user beside live sessions."""
    for path, data in {
        f"text_chat/users/{user}/profile.json": b'{"user_id": "u"}',
        f"text_chat/archive/{user}/old/20240101_000000/messages.jsonl": b'{"content": "archived"}\n',
        f"text_chat/sessions/{user}/unfinished/messages.jsonl": b'{"content": "no metadata yet"}\n',
        f"text_chat/sessions/{user}/unfinished/shards/x_messages.jsonl": b"\xff\xfe\n",
        "text_chat/indices/messages/segment": b"everybody's words",
        "text_chat/indices/user_sessions.json": json.dumps({user: ["old"], "other": ["o"]}).encode(),
    }.items():
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(data)


async def test_nothing_of_an_erased_user_is_left_and_everything_of_another_is(start: Start, tmp_path: Path) -> None:
    chat = await start()
    lay_out(tmp_path, "nora")
    mine = await chat.create_session("nora")
    await chat.send_message(mine.id, "words of nora", user_id="nora")
    other = await chat.create_session("bob")
    await chat.send_message(other.id, "words of bob", user_id="bob")
    erasure = await chat.erase_user("nora")
    assert (erasure.sessions, erasure.index_removed) == (1, True)
    assert erasure.files >= 5
    left = [file for file in tmp_path.rglob("*") if "nora" in str(file.relative_to(tmp_path))]
    assert left == []
    assert not any(b"nora" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert json.loads((tmp_path / "text_chat/indices/user_sessions.json").read_text()) == {"other": ["o"]}
    assert [one.content for one in await chat.get_messages(other.id, user_id="bob")] == ["words of bob"]
    assert await chat.list_sessions("nora") == []


async def test_an_index_of_messages_stays_where_the_user_has_nothing(start: Start, tmp_path: Path) -> None:
    chat = await start()
    lay_out(tmp_path, "bob")
    erasure = await chat.erase_user("nora")
    assert (erasure.files, erasure.index_removed) == (0, False)
    assert (tmp_path / "text_chat/indices/messages/segment").exists()


async def test_an_erasure_that_was_broken_off_is_finished_by_the_next(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modules.text_chat.user_files import UserFiles

    chat = await start()
    lay_out(tmp_path, "nora")

    def broken(self: object) -> None:
        raise OSError("power")

    with monkeypatch.context() as patch:
        patch.setattr(UserFiles, "erase", broken)
        with pytest.raises(OSError, match="power"):
            await chat.erase_user("nora")
    await chat.erase_user("nora")
    assert [file for file in tmp_path.rglob("*") if "nora" in str(file.relative_to(tmp_path))] == []


async def test_a_damaged_list_of_sessions_is_removed_rather_than_kept(start: Start, tmp_path: Path) -> None:
    chat = await start()
    lay_out(tmp_path, "nora")
    (tmp_path / "text_chat/indices/user_sessions.json").write_bytes(b'{"nora": ["cut o')
    await chat.erase_user("nora")
    assert not (tmp_path / "text_chat/indices/user_sessions.json").exists()


async def test_an_answer_under_way_is_cut_off_by_an_erasure(start: Start, tmp_path: Path) -> None:
    chat = await start(Held())
    session = await chat.create_session("nora")
    chunks = chat.stream_response(session.id, "tell me", user_id="nora")
    for _ in range(2):
        await anext(chunks)
    await chat.erase_user("nora")
    ended = [chunk async for chunk in chunks][-1]
    assert ended.type == "ended"
    assert not list((tmp_path / "text_chat/sessions").rglob("*.jsonl"))


async def test_an_export_has_sessions_with_their_messages_and_every_other_file(start: Start, tmp_path: Path) -> None:
    chat = await start()
    lay_out(tmp_path, "nora")
    session = await chat.create_session("nora", "Engines")
    for number in range(3):
        await chat.send_message(session.id, f"message {number}", user_id="nora")
    export = await chat.export_user("nora")
    json.dumps(export)
    (one,) = export["sessions"]
    assert (one["title"], [message["content"] for message in one["messages"]]) == (
        "Engines",
        ["message 0", "message 1", "message 2"],
    )
    files = export["files"]
    assert files["text_chat/users/nora/profile.json"] == '{"user_id": "u"}'
    assert files["text_chat/sessions/nora/unfinished/shards/x_messages.jsonl"] == {"base64": "//4K"}
    assert "text_chat/archive/nora/old/20240101_000000/messages.jsonl" in files
    assert (await chat.export_user("nobody")) == {"user_id": "nobody", "sessions": [], "files": {}}


async def test_what_a_migration_left_without_metadata_is_exported_too(start: Start, tmp_path: Path) -> None:
    chat = await start()
    lay_out(tmp_path, "nora")
    export = await chat.export_user("nora")
    assert "no metadata yet" in json.dumps(export)


async def test_a_conversation_that_is_brought_is_answered_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    chat = await start()
    messages = [PromptMessage("user", "A shard is a part."), PromptMessage("user", "What is a shard?")]
    deltas = [delta async for delta in chat.complete(messages)]
    assert "A shard is a part." in "".join(delta.text for delta in deltas)
    assert deltas[-1].finish_reason == "stop"
    assert not list(tmp_path.rglob("messages.jsonl"))


async def test_what_is_asked_of_the_model_reaches_it(start: Start) -> None:
    model = Counting()
    chat = await start(model)
    tool = Tool("clock")
    prompt = [PromptMessage("user", "time?")]
    [_ async for _ in chat.complete(prompt, max_tokens=7, stop=["x"], seed=3, tools=[tool], tool_choice="required")]
    assert (model.options["max_tokens"], model.options["stop"], model.options["seed"]) == (7, ("x",), 3)
    assert (model.options["tools"], model.options["tool_choice"]) == ((tool,), "required")
    assert (await chat.describe_model()).can_call_tools


async def test_prompts_and_answers_count_as_the_users_own(start: Start) -> None:
    chat = await start(Counting(), rate_limit={"messages_per_minute": None, "tokens_per_minute": 50})
    prompt = [PromptMessage("user", "x" * 40)]
    [_ async for _ in chat.complete(prompt, user_id="nora")]
    with pytest.raises(RateLimited):
        [_ async for _ in chat.complete(prompt, user_id="nora")]
    [_ async for _ in chat.complete(prompt, user_id="bob")]
    [_ async for _ in chat.complete(prompt)]


@pytest.mark.parametrize(
    "options", [{"max_tokens": 0}, {"temperature": 9.0}, {"stop": [""]}, {"tools": [Tool("a"), Tool("a")]}]
)
async def test_what_no_model_would_take_is_refused(start: Start, options: dict[str, Any]) -> None:
    chat = await start()
    with pytest.raises(ValidationError):
        [_ async for _ in chat.complete([PromptMessage("user", "x")], **options)]
    with pytest.raises(ValidationError):
        [_ async for _ in chat.complete([])]


async def test_sessions_are_listed_in_either_order(start: Start) -> None:
    chat = await start()
    ids = [(await chat.create_session("nora")).id for _ in range(3)]
    assert [one.id for one in await chat.list_sessions("nora", order="asc")] == ids
    assert [one.id for one in await chat.list_sessions("nora")] == ids[::-1]
    assert [one.id for one in await chat.list_sessions("nora", order="asc", after=ids[0], limit=1)] == ids[1:2]
