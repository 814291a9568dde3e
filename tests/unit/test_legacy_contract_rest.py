"""Documents, vectors, contexts, panels and personas by the old storage API: a case for each call."""

import json
from datetime import datetime

import pytest

from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, FFPanelInsightDTO, FFPanelMessageDTO
from tests.legacy_cases import STILL, THE_REST, Cases, config_of, context

CASES = Cases()
case = CASES.case


# -- documents --------------------------------------------------------------------------------------------------------


@case("save_document")
async def _(adapter, tmp_path):
    name = await adapter.save_document("ann", "s", "Über uns (1).TXT", "größe", {"a": 1})
    assert name[8] == "_"
    assert int(name[:8], 16) >= 0
    assert name[9:] == "Uber_uns__1_.TXT"
    assert await adapter.get_document("ann", "s", name) == "größe".encode()
    for refused in ("a.exe", "noextension", "a.tar.gz"):
        assert await adapter.save_document("ann", "s", refused, b"x") == ""
    small = LegacyStorageAdapter(config_of(tmp_path / "s", storage={"max_document_size_bytes": 3}))
    assert await small.save_document("ann", "s", "a.txt", b"1234") == ""
    assert await adapter.save_document("persona_p", "s", "a.txt", b"x")
    assert len(await adapter.list_documents("persona_p", "s")) == 1


@case("get_document")
async def _(adapter):
    name = await adapter.save_document("ann", "s", "a.md", b"x")
    for other in (("bob", "s", name), ("ann", "t", name), ("ann", "s", "../session.json"), ("ann", "s", "no")):
        assert await adapter.get_document(*other) is None
    assert await adapter.get_document("ann", "s", "n" * 300) is None


@case("list_documents")
async def _(adapter):
    assert await adapter.list_documents("ann", "s") == []
    names = [await adapter.save_document("ann", "s", f"{n}.svg", b"12", {"n": n}) for n in range(3)]
    found = await adapter.list_documents("ann", "s")
    assert [one.filename for one in found] == sorted(names)
    one = next(entry for entry in found if entry.filename == names[0])
    assert (one.original_name, one.size, one.uploaded_by, one.metadata) == ("0.svg", 2, "ann", {"n": 0})
    assert one.mime_type == "application/octet-stream"
    assert one.path == f"users/ann/s/documents/{names[0]}"


@case("update_document_analysis")
async def _(adapter):
    name = await adapter.save_document("ann", "s", "a.md", b"x")
    assert await adapter.update_document_analysis("ann", "s", "no", {}) is False
    assert await adapter.update_document_analysis("ann", "s", name, {"pages": 1}) is True
    assert await adapter.update_document_analysis("ann", "s", name, {"pages": 2}) is True
    (one,) = await adapter.list_documents("ann", "s")
    assert one.analysis["analysis"]["results"] == {"pages": 2}
    assert set(one.analysis["analysis"]) == {"results", "timestamp"}


# -- vectors through the manager ---------------------------------------------------------------------------------------


@case("store_document_with_vectors")
async def _(adapter, caplog):
    text = "Rivers run down to the sea. " * 60
    assert await adapter.store_document_with_vectors("ann", "s", "d", text, {"a": 1}, "fixed") is True
    assert await adapter.get_document("ann", "s", "d") == text.encode()
    assert (await adapter.get_vector_stats("ann", "s"))["total_vectors"] >= 2
    assert await adapter.store_document_with_vectors("ann", "s", "e", text, None, "no such way") is False
    assert "chunking_strategy" in caplog.text


@case("vector_search")
async def _(adapter):
    await adapter.add_message("ann", "s", FFMessageDTO("user", "x"))
    await adapter.store_document_with_vectors("ann", "s", "d", "aaaa aaab")
    await adapter.store_document_with_vectors("ann", "s", "e", "zzzz zzzy")
    (found,) = await adapter.vector_search("ann", "aaa")
    assert (found.type, found.content, found.metadata["document_id"]) == ("vector_chunk", "aaaa aaab", "d")
    assert found.metadata["search_type"] == "vector"
    assert len(await adapter.vector_search("ann", "aaa", ["s"], 5, -1.0)) == 2
    assert await adapter.vector_search("ann", "aaa", ["t"]) == []
    assert await adapter.vector_search("bob", "aaa") == []


@case("hybrid_search")
async def _(adapter):
    await adapter.add_message("ann", "s", FFMessageDTO("user", "x"))
    await adapter.store_document_with_vectors("ann", "s", "d", "abc abc")
    await adapter.store_document_with_vectors("ann", "s", "e", "cab cab")
    found = await adapter.hybrid_search("ann", "abc", vector_weight=0.5)
    assert [one.content for one in found] == ["abc abc", "cab cab"]  # alike in letters, one in words too
    assert found[0].metadata["search_type"] == "hybrid"
    with pytest.raises(ValueError, match="vector_weight"):
        await adapter.hybrid_search("ann", "abc", vector_weight=2)


@case("delete_document_vectors")
async def _(adapter):
    await adapter.store_document_with_vectors("ann", "s", "d", "abc")
    assert await adapter.delete_document_vectors("ann", "s", "d") is True
    assert await adapter.delete_document_vectors("ann", "s", "d") is True
    assert (await adapter.get_vector_stats("ann", "s"))["total_vectors"] == 0


@case("get_vector_stats")
async def _(adapter):
    empty = {"total_vectors": 0, "total_documents": 0, "vector_dimensions": 0, "storage_size_bytes": 0}
    assert await adapter.get_vector_stats("ann", "s") == empty
    await adapter.store_document_with_vectors("ann", "s", "d", "abc")
    stats = await adapter.get_vector_stats("ann", "s")
    assert (stats["total_vectors"], stats["vector_dimensions"]) == (1, 26)
    assert stats["providers_used"] == ["letters"]


# -- contexts ---------------------------------------------------------------------------------------------------------


@case("update_context")
async def _(adapter):
    assert await adapter.update_context("ann", "s", context(summary="one")) is True
    assert await adapter.update_context("ann", "s", context(summary="two")) is True
    assert (await adapter.get_context("ann", "s")).summary == "two"
    assert await adapter.get_context_history("ann", "s") == []


@case("get_context")
async def _(adapter):
    assert await adapter.get_context("ann", "s") is None
    assert not adapter.base_path.exists()
    stored = context()
    await adapter.update_context("ann", "s", stored)
    assert await adapter.get_context("ann", "s") == stored


@case("save_context_snapshot")
async def _(adapter, tmp_path):
    still = LegacyStorageAdapter(config_of(tmp_path / "still"), now=lambda: STILL)
    for summary in ("one", "two"):
        assert await still.save_context_snapshot("ann", "s", context(summary=summary)) is True
    assert [one.summary for one in await still.get_context_history("ann", "s")] == ["two", "one"]
    history = tmp_path / "still/memory/short_term/ann/s/history"
    assert (history / "context_20250102_030405_000006.json").exists()


@case("get_context_history")
async def _(adapter):
    for number in range(4):
        await adapter.save_context_snapshot("ann", "s", context(summary=str(number)))
    assert [one.summary for one in await adapter.get_context_history("ann", "s")] == ["3", "2", "1", "0"]
    assert [one.summary for one in await adapter.get_context_history("ann", "s", 2)] == ["3", "2"]
    assert len(await adapter.get_context_history("ann", "s", 0)) == 4


# -- panels and personas ----------------------------------------------------------------------------------------------


@case("create_panel")
async def _(adapter):
    await adapter.save_persona("p1", {"id": "p1", "name": "P"})
    panel = await adapter.create_panel("focus_group", ["p1", "absent/../x"], {"rounds": 2})
    datetime.strptime(panel, "panel_%Y%m%d_%H%M%S_%f")  # noqa: DTZ007 - as v2's ids are
    home = adapter.base_path / "multi_agent/conversations" / panel
    assert json.loads((home / "participants.json").read_text()) == ["p1", "absent/../x"]
    assert [path.name for path in (home / "participants").iterdir()] == ["p1.json"]
    stored = json.loads((home / "metadata.json").read_text())
    assert (stored["type"], stored["config"]) == ("focus_group", {"rounds": 2})
    assert await adapter.create_panel("x", [str(n) for n in range(11)]) == ""
    with pytest.raises(ValueError, match="persona"):
        await adapter.create_panel("x", [])


@case("add_panel_message")
async def _(adapter):
    for panel in (await adapter.create_panel("x", ["p"]), "unknown"):
        assert await adapter.add_panel_message(panel, FFPanelMessageDTO("p", "hi", consensus_level=0.5)) is True
        (found,) = await adapter.get_panel_messages(panel)
        assert (found.persona_id, found.content, found.consensus_level) == ("p", "hi", 0.5)


@case("get_panel_messages")
async def _(adapter):
    for number in range(25):
        await adapter.add_panel_message("x", FFPanelMessageDTO("p", str(number), response_to="m"))
    assert [one.content for one in await adapter.get_panel_messages("x")] == [str(n) for n in range(20)]
    assert len(await adapter.get_panel_messages("x", 25)) == 25
    assert await adapter.get_panel_messages("missing") == []


@case("save_panel_insight")
async def _(adapter):
    panel = await adapter.create_panel("x", ["p"])
    insights = [FFPanelInsightDTO(panel_id=panel, content=text, consensus_level=0.5) for text in ("one", "two")]
    for insight in (*insights, insights[0]):
        assert await adapter.save_panel_insight(panel, insight) is True
    home = adapter.base_path / "multi_agent/conversations" / panel
    stored = json.loads((home / "decisions.json").read_text())
    assert stored == [insights[1].to_dict(), insights[0].to_dict()]
    assert json.loads((home / "metadata.json").read_text())["decisions"] == 2


@case("save_persona")
async def _(adapter):
    assert await adapter.save_persona("dr. who", {"any": [1], "name": "W"}) is True
    assert await adapter.save_persona("dr. who", {"name": "X"}) is True
    assert await adapter.get_persona("dr. who") == {"name": "X"}
    await adapter.save_persona("日本", {"name": "J"})
    await adapter.save_persona("中文", {"name": "C"})
    assert (await adapter.get_persona("日本"))["name"] == "J"  # v2 took the two for one


@case("get_persona")
async def _(adapter):
    assert await adapter.get_persona("p") is None
    await adapter.save_persona("p", {"name": "everyone's"})
    assert await adapter.get_persona("p", "ann") == {"name": "everyone's"}
    await adapter.save_persona("p", {"name": "ann's"}, "ann")
    assert await adapter.get_persona("p", "ann") == {"name": "ann's"}
    assert await adapter.get_persona("p", "bob") == {"name": "everyone's"}


@case("list_personas")
async def _(adapter):
    assert await adapter.list_personas() == []
    await adapter.save_persona("b", {"name": "B"})
    await adapter.save_persona("a", {"name": "A"})
    await adapter.save_persona("c", {"name": "C"}, "ann")
    assert [one["name"] for one in await adapter.list_personas("ann")] == ["A", "B", "C"]
    assert [one["name"] for one in await adapter.list_personas()] == ["A", "B"]


@case("process_document_with_prismmind")
async def _(adapter):
    answer = await adapter.process_document_with_prismmind("/x/a.pdf", "ann", "s")
    assert answer == {
        "success": False,
        "error": "PrismMind integration not available",
        "document_id": "a.pdf",
        "chunk_count": 0,
        "vector_count": 0,
        "processing_time": 0,
    }


@case("get_prismmind_config, is_prismmind_available, prismmind_available")
async def _(adapter):
    assert adapter.get_prismmind_config() is None
    assert adapter.is_prismmind_available() is False
    assert adapter.prismmind_available is False


@pytest.mark.parametrize("name", CASES)
async def test_the_storage_manager(name, tmp_path, caplog):
    await CASES.run(name, tmp_path, caplog)


def test_every_call_that_is_left_to_this_file_has_its_case():
    assert {call.strip() for name in CASES for call in name.split(",")} - {"prismmind_available"} == THE_REST
