"""Old calls on the new store give v2's shapes."""

import json

import pytest

from migration.legacy_adapter import LegacyStorageAdapter
from modules.core.errors import NotFound, Unavailable
from modules.core.loader import ModuleLoader


@pytest.fixture
async def adapter(tmp_path):
    config = {"modules": {"text_chat": {"enabled": True}}, "storage": {"base_path": str(tmp_path)}}
    loader = ModuleLoader.from_mapping(config)
    await loader.load_all()
    yield LegacyStorageAdapter(loader.context)
    await loader.close()


async def test_a_session_is_created_as_the_guide_has_it(adapter):
    created = await adapter.create_session("ann", "My chat")

    assert set(created) == {"session_id", "session_name", "created_at"}
    assert created["session_name"] == "My chat"
    session = await adapter.get_session(created["session_id"])
    assert (session["title"], session["session_name"], session["user_id"]) == ("My chat", "My chat", "ann")
    assert session["created_at"] == created["created_at"]


async def test_messages_come_back_in_order_with_v2s_names(adapter):
    created = await adapter.create_session("ann", "My chat")
    added = await adapter.add_message(created["session_id"], {"content": "hi", "metadata": {"k": 1}})
    await adapter.add_message(created["session_id"], {"content": "hello", "role": "assistant"})

    messages = await adapter.get_messages(created["session_id"], user_id="ann")

    assert messages[0] == added
    assert [(message["role"], message["content"]) for message in messages] == [("user", "hi"), ("assistant", "hello")]
    assert set(added) == {"message_id", "role", "content", "timestamp", "attachments", "metadata"}
    (session,) = await adapter.list_sessions("ann")
    assert session["message_count"] == 2


async def test_a_migrated_message_comes_back_with_all_that_v2_knew(adapter, tmp_path):
    place = tmp_path / "text_chat/sessions/ann/old"
    place.mkdir(parents=True)
    record = {
        "role": "dr_who",
        "content": "x",
        "id": "m",
        "timestamp": "t",
        "attachments": ["a.png"],
        "response_to": "r",
    }
    (place / "messages.jsonl").write_text(json.dumps(record) + "\n")
    (place / "metadata.json").write_text('{"id": "old", "user_id": "ann", "title": "T"}')

    (message,) = await adapter.get_messages("old")

    assert message == {
        "message_id": "m",
        "role": "dr_who",
        "content": "x",
        "timestamp": "t",
        "attachments": ["a.png"],
        "metadata": {},
        "response_to": "r",
    }


async def test_an_unknown_session_is_not_found(adapter):
    with pytest.raises(NotFound):
        await adapter.add_message("unknown", {"content": "x"})


async def test_without_text_chat_it_says_so():
    class Nothing:
        async def get_module(self, name):
            return None

    with pytest.raises(Unavailable, match="text_chat"):
        await LegacyStorageAdapter(Nothing()).create_session("ann", "x")
