"""The module as its callers see it: what it allows, what it keeps in mind, what it says of itself."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, RateLimited
from modules.text_chat import TextChatModule
from tests.text_chat_platform import clock, contents, home, migrated, plain_metadata, start

__all__ = ["clock", "start"]  # fixtures

GOLDEN = (
    Path(os.environ.get("MODCHAT_V2_CORPORA", Path(__file__).resolve().parents[3] / "shared" / "corpora")) / "golden"
)


# -- limits --------------------------------------------------------------------------------------------------


async def test_a_full_session_and_a_user_with_enough_sessions_are_conflicts(start, tmp_path):
    migrated(tmp_path, "ann", "old", metadata=plain_metadata("ann", "old"))
    chat = await start(max_messages_per_session=2, session={"max_sessions_per_user": 2})
    first, _ = await chat.create_session("ann"), await chat.create_session("ann")
    with pytest.raises(Conflict, match="at most 2"):
        await chat.create_session("ann")
    await chat.create_session("bob")
    await chat.send_message(first.id, "1")
    await chat.send_message(first.id, "2")
    with pytest.raises(Conflict, match="full"):
        await chat.send_message(first.id, "3")


async def test_users_messages_a_minute_are_limited_by_user_and_the_window_slides(start, clock):
    chat = await start(rate_limit={"messages_per_minute": 2, "tokens_per_minute": None})
    session, others = await chat.create_session("ann"), await chat.create_session("bob")
    await chat.send_message(session.id, "1")
    clock.advance(40)
    await chat.send_message(session.id, "2")
    with pytest.raises(RateLimited) as caught:
        await chat.send_message(session.id, "3")
    assert caught.value.retry_after_s == pytest.approx(20)
    await chat.send_message(others.id, "1")
    await chat.send_message(session.id, "an answer is stored", "assistant")
    clock.advance(20)
    await chat.send_message(session.id, "3")
    assert contents(await chat.get_messages(session.id)) == ["1", "2", "an answer is stored", "3"]


async def test_tokens_a_minute_count_answers_too(start, clock):
    chat = await start(rate_limit={"messages_per_minute": None, "tokens_per_minute": 10})
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "x", tokens=4)
    await chat.send_message(session.id, "long answer", "assistant", tokens=6)
    with pytest.raises(RateLimited, match="10 tokens"):
        await chat.send_message(session.id, "x", tokens=1)
    clock.advance(60)
    await chat.send_message(session.id, "x", tokens=50)


@pytest.mark.parametrize(
    "settings",
    [
        {"durability": "maybe"},
        {"max_message_length": 0},
        {"rate_limit": {"messages_per_minute": "many"}},
        {"session": {"max_sessions_per_user": None}},
    ],
)
async def test_a_wrong_setting_is_named(start, settings):
    with pytest.raises(ConfigurationError, match=r"text_chat\."):
        await start(**settings)


# -- state, events, health -----------------------------------------------------------------------------------


async def test_state_is_written_at_first_use_and_at_the_close(start, tmp_path, clock):
    chat = await start()
    session = await chat.create_session("ann")
    state = home(tmp_path, session) / "state.json"
    assert not state.exists()
    await chat.send_message(session.id, "12345678")
    assert json.loads(state.read_bytes())["message_count"] == 1
    clock.advance(5)
    last = await chat.send_message(session.id, "abcd", "assistant")
    await chat.close()

    stored = json.loads(state.read_bytes())
    assert stored["last_message_id"] == last.id
    assert (stored["turn_count"], stored["total_tokens"], stored["message_count"]) == (1, 3, 2)
    assert stored["active_since"] == "2024-01-15T12:00:00+00:00"
    assert stored["last_activity"] == "2024-01-15T12:00:05+00:00"


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[1", b'{"message_count": "many"}', b'{"log_inode": 1, "log_bytes": 5, "message_count": 99}'],
)
async def test_a_damaged_state_is_counted_anew(start, tmp_path, damage):
    chat = await start()
    session = await chat.create_session("ann")
    for n in range(3):
        await chat.send_message(session.id, str(n))
    (home(tmp_path, session) / "state.json").write_bytes(damage)

    again = await start()
    await again.send_message(session.id, "3")

    assert (await again.get_session(session.id)).message_count == 4


async def test_activity_begins_anew_after_the_idle_time_out(start, tmp_path, clock):
    chat = await start(session={"idle_timeout_seconds": 60})
    session = await chat.create_session("ann")
    ended = []

    @chat._context.bus.on("chat.session.ended")
    async def hear(data):
        ended.append((data["session_id"], data["reason"]))

    await chat.send_message(session.id, "1")
    clock.advance(30)
    assert await chat.end_idle() == []
    clock.advance(61)
    assert await chat.end_idle() == [("ann", session.id)]
    await chat.send_message(session.id, "2")
    await chat.close()

    assert ended == [(session.id, "idle")]
    state = json.loads((home(tmp_path, session) / "state.json").read_bytes())
    assert state["active_since"] == "2024-01-15T12:01:31+00:00"


async def test_events_do_what_calls_do_and_errors_are_answered(start):
    chat = await start()
    bus, heard = chat._context.bus, []

    @bus.on("*", envelope=True)
    async def hear(envelope):
        heard.append((envelope.event, envelope.source_module, dict(envelope.data)))

    await bus.emit("chat.session.create", {"user_id": "ann", "title": "T"})
    (session,) = await chat.list_sessions("ann")
    await bus.emit("chat.message.send", {"session_id": session.id, "content": "hi"})
    await bus.emit("chat.message.send", {"session_id": session.id})
    await bus.emit("chat.message.send", {"session_id": session.id, "content": ""})
    await bus.emit("chat.session.end", {"session_id": session.id})

    said = [(event, data) for event, source, data in heard if source == "text_chat"]
    assert [event for event, _ in said] == [
        "chat.session.created",
        "chat.message.received",
        "chat.error",
        "chat.error",
        "chat.session.ended",
    ]
    assert said[0][1]["session"]["title"] == "T"
    assert said[1][1]["message"]["content"] == "hi"
    assert "content" in said[2][1]["message"]
    assert said[3][1]["code"] == "invalid_request"
    assert bus.failures == {}

    await chat.close()
    assert (await bus.emit("chat.session.create", {"user_id": "ann"})).handled == 1


async def test_health_is_whether_a_message_could_be_stored(start, tmp_path):
    chat = await start()
    assert await chat.health_check()
    tmp_path.rename(tmp_path.with_name("moved"))
    assert not await chat.health_check()
    tmp_path.with_name("moved").rename(tmp_path)


async def test_it_needs_flat_files():
    class Other:
        pass

    with pytest.raises(ConfigurationError, match="flat files"):
        await TextChatModule().initialize(ModuleContext(storage=Other()))


async def test_many_sessions_in_use_are_let_go_and_come_back(start, clock):
    chat = await start(session={"max_sessions_per_user": 100})
    chat._held._at_most = 5
    sessions = [await chat.create_session("ann") for _ in range(20)]
    for n in range(3):
        await asyncio.gather(*(chat.send_message(session.id, str(n)) for session in sessions))
    for session in sessions:
        assert contents(await chat.get_messages(session.id)) == ["0", "1", "2"]
        assert (await chat.get_session(session.id)).message_count == 3
    assert len(chat._held._held) <= 6


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the sample corpora are not here")
async def test_real_v2_lines_are_read_as_they_were_written(start, tmp_path):
    found = 0
    for log in GOLDEN.glob("**/messages.jsonl"):
        lines = [line for line in log.read_bytes().split(b"\n") if line.strip()]
        name = f"s{found}"
        migrated(tmp_path, "ann", name, metadata=plain_metadata("ann", name), lines=lines)
        chat = await start()
        messages = await chat.get_messages(name, user_id="ann", limit=1000)
        assert contents(messages) == [json.loads(line)["content"] for line in lines]
        assert [message.timestamp for message in messages] == [json.loads(line)["timestamp"] for line in lines]
        found += 1
    assert found
