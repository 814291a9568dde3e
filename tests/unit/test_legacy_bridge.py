"""The bridge and its data layer answer as other applications know them, and raise nothing."""

import os

import pytest

from migration.legacy_bridge import FFChatAppBridge, FFIntegrationHealthMonitor
from migration.legacy_sessions import login_name


@pytest.fixture
async def bridge(tmp_path):
    made = await FFChatAppBridge.create_for_chat_app(tmp_path / "new")
    yield made
    await made.close()


@pytest.fixture
def layer(bridge):
    return bridge.get_data_layer()


def checked(answer, *, success=True):
    assert set(answer) == {"success", "data", "metadata", "error", "warnings"}
    about = {"operation", "operation_time_ms", "records_affected", "performance_metrics"}
    assert set(answer["metadata"]) == about
    assert (answer["success"], answer["error"] is None) == (success, success)
    return answer["data"]


async def test_create_for_chat_app(tmp_path):
    bridge = await FFChatAppBridge.create_for_chat_app(tmp_path, {"history_page_size": 3, "cache_size_mb": 9})
    said = bridge.get_standardized_config()
    assert (said["history_page_size"], said["storage"]["base_path"]) == (3, str(tmp_path))
    assert said["warnings"] == ["option 'cache_size_mb' means nothing here"]
    with pytest.raises(ValueError, match="history_page_size"):
        await FFChatAppBridge.create_for_chat_app(tmp_path, {"history_page_size": 0})
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be used"):
        await FFChatAppBridge.create_for_chat_app(tmp_path / "file/below")


async def test_create_from_preset(tmp_path):
    bridge = await FFChatAppBridge.create_from_preset("high_performance", tmp_path)
    assert (bridge.options.history_page_size, bridge.options.similarity_threshold) == (100, 0.8)
    with pytest.raises(ValueError, match="preset"):
        await FFChatAppBridge.create_from_preset("no such", tmp_path)


async def test_create_for_use_case(tmp_path):
    bridge = await FFChatAppBridge.create_for_use_case("research", tmp_path, {"history_page_size": 7})
    assert (bridge.options.history_page_size, bridge.options.similarity_threshold) == (7, 0.6)
    assert (await FFChatAppBridge.create_for_use_case("anything", tmp_path)).options.history_page_size == 50


async def test_health_check_leaves_nothing(bridge, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert (await bridge.health_check())["status"] == "healthy"
    assert sorted(tmp_path.rglob("*")) == before
    os.rmdir(tmp_path / "new")
    (tmp_path / "new").write_text("")
    assert (await bridge.health_check())["status"] == "unhealthy"


async def test_get_capabilities(bridge, tmp_path):
    assert bridge.get_capabilities()["search"] == {"text": True, "vector": True, "hybrid": True}
    light = await FFChatAppBridge.create_from_preset("lightweight", tmp_path)
    assert light.get_capabilities()["search"]["vector"] is False


async def test_get_current_user_and_get_user_info(bridge):
    assert bridge.get_current_user() == login_name()
    assert await bridge.get_user_info("ann") == {"user_id": "ann", "exists": False, "profile": None}
    await bridge.storage.create_user("ann")
    assert (await bridge.get_user_info("ann"))["profile"]["user_id"] == "ann"


async def test_store_chat_message(bridge, layer):
    session = await bridge.storage.create_session("ann")
    message = {"role": "user", "content": "hi", "message_id": "m1", "metadata": {"k": 1}}
    data = checked(await layer.store_chat_message("ann", session, message))
    assert (data["message_id"], data["session_updated"]) == ("m1", True)
    (stored,) = await bridge.storage.get_messages("ann", session)
    assert (stored.metadata["k"], stored.metadata["chat_optimized"], stored.metadata["stored_via_bridge"]) == (
        1,
        True,
        True,
    )
    assert "processing_time" in stored.metadata
    assert checked(await layer.store_chat_message("ann", "unknown", message))["session_updated"] is False
    for wrong in ({}, {"role": "user", "content": ""}, {"role": "user", "content": "x" * 2_000_000}, None):
        assert checked(await layer.store_chat_message("ann", session, wrong), success=False) is None


async def test_get_chat_history(bridge, layer):
    session = await bridge.storage.create_session("ann")
    for number in range(60):
        await layer.store_chat_message("ann", session, {"role": "user", "content": str(number)})
    data = checked(await layer.get_chat_history("ann", session))
    assert [one["content"] for one in data["messages"]] == [str(number) for number in range(50)]
    assert (data["total_count"], data["has_more"]) == (60, True)
    rest = checked(await layer.get_chat_history("ann", session, 20, 50))
    assert (len(rest["messages"]), rest["has_more"]) == (10, False)
    other = await FFChatAppBridge.create_for_chat_app(bridge.storage.base_path)
    await other.get_data_layer().store_chat_message("ann", session, {"role": "user", "content": "new"})
    assert checked(await layer.get_chat_history("ann", session))["total_count"] == 61  # never an old page


async def test_search_conversations(bridge, layer):
    session = await bridge.storage.create_session("ann")
    for number in range(30):
        await layer.store_chat_message("ann", session, {"role": "user", "content": f"river {number}"})
    data = checked(await layer.search_conversations("ann", "RIVER 7"))
    assert [one["content"] for one in data["results"]] == ["river 7"]
    assert set(data) == {"results", "search_metadata", "performance_info"}
    assert len(checked(await layer.search_conversations("ann", "river", {"limit": 3}))["results"]) == 3
    assert checked(await layer.search_conversations("ann", "x", {"session_ids": ["no"]}))["results"] == []
    checked(await layer.search_conversations("ann", "x", {"search_type": "odd"}), success=False)


async def test_get_analytics_summary(bridge, layer):
    for count in (30, 10):
        session = await bridge.storage.create_session("ann")
        for number in range(count):
            await layer.store_chat_message("ann", session, {"role": "user", "content": str(number)})
    await bridge.storage.create_session("ann")
    analytics = checked(await layer.get_analytics_summary("ann"))["analytics"]
    assert (analytics["total_sessions"], analytics["total_messages"]) == (3, 40)
    assert analytics["avg_session_length"] == pytest.approx(40 / 3)
    assert sum(analytics["recent_activity"].values()) == 40


async def test_stream_conversation(bridge, layer):
    for number in range(7):
        await layer.store_chat_message("ann", "s", {"role": "user", "content": str(number)})
    chunks = [one async for one in layer.stream_conversation("ann", "s", 3)]
    assert [[message["content"] for message in one["chunk"]] for one in chunks] == [list("012"), list("345"), ["6"]]
    assert [one["chunk_info"]["has_more"] for one in chunks] == [True, True, False]
    assert chunks[-1]["chunk_info"] == {"offset": 6, "size": 1, "has_more": False, "total_streamed": 7}
    assert [one async for one in layer.stream_conversation("ann", "missing")] == []


async def test_comprehensive_health_check_makes_no_user(bridge):
    answer = await FFIntegrationHealthMonitor(bridge).comprehensive_health_check()
    assert answer["overall_status"] == "healthy"
    assert await bridge.storage.list_users() == []
