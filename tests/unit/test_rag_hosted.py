"""Rag on the runtime: in several shards, its answers copied as between processes, heard and told by events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from modules.core.context import ModuleContext
from modules.core.errors import NotFound
from modules.core.storage import FlatFileStorage
from modules.rag import RagModule, UnsupportedDocument

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "modules": {
        "rag": {"enabled": True, "shards": 2, "embedding": {"provider": "none"}},
        "text_chat": {"enabled": True, "model": {"provider": "extractive"}},
    }
}


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    started = await Platform.start(SETTINGS, base=tmp_path, runtime=LocalRuntime(copies=True))
    yield started
    await started.stop()


async def test_every_function_can_be_called_at_a_distance(platform: Platform) -> None:
    rag = platform.ref("rag")
    users = ("ann", "bob", "cid", "dan")
    added = {}
    for user_id in users:
        added[user_id] = await rag.ask("add_document", b"figs and dates", name="fruit.txt", user_id=user_id)
    for user_id in users:
        id_ = added[user_id].id
        (passage,) = await rag.ask("search_knowledge", "dates", user_id=user_id)
        assert passage.document_id == id_
        assert (await rag.ask("get_relevant_context", "dates", 100, user_id=user_id)).text.startswith("[1] fruit.txt")
        assert (await rag.ask("list_documents", user_id)).documents == (added[user_id],)
        assert await rag.ask("get_document", id_, user_id=user_id) == added[user_id]
        assert await rag.ask("read_original", id_, user_id=user_id) == b"figs and dates"
        assert (await rag.ask("verify_source", id_, "figs and", user_id=user_id)).stands
        assert (await rag.ask("update_embeddings", user_id=user_id)).indexed == 0
        assert (await rag.ask("index_status", user_id)).chunks == 1
        assert await rag.ask("search_by_vector", [1.0], user_id=user_id) == []
        assert len(await rag.ask("list_indexes", user_id)) == 1
        assert len((await rag.ask("export_user", user_id))["documents"]) == 1
    assert (await rag.ask("extract_text", b"text", name="a.txt")).text == "text"
    assert (await rag.ask("delete_document", added["ann"].id, user_id="ann")).chunks == 1
    assert (await rag.ask("erase_user", "bob")).documents == 1
    with pytest.raises(NotFound):
        await rag.ask("get_document", added["cid"].id, user_id="dan")
    with pytest.raises(UnsupportedDocument):
        await rag.ask("add_document", b"x", name="a.exe", user_id="ann")


async def test_text_chat_answers_from_documents(platform: Platform) -> None:
    rag, chat = platform.ref("rag"), platform.ref("text_chat")
    await rag.ask("add_document", b"The warehouse in Bremen stores green tea.", name="tea.txt", user_id="ann")
    session = await chat.ask("create_session", "ann")
    pieces = [
        piece async for piece in chat.stream("stream_response", session.id, "What is stored in Bremen?", user_id="ann")
    ]
    assert "green tea" in "".join(str(getattr(piece, "text", piece)) for piece in pieces)


async def test_shards_share_one_registry(platform: Platform, tmp_path: Path) -> None:
    rag = platform.ref("rag")
    ids = set()
    for user_id in ("ann", "bob", "cid", "dan"):
        ids.add((await rag.ask("add_document", b"text", name="a.txt", user_id=user_id)).id)
    for key in ("ann", "bob", "cid", "dan"):
        await rag.ask("save_registry", shard_key=key)
    registry = (tmp_path / "rag/indices/document_registry.json").read_text()
    assert all(id_ in registry for id_ in ids)


async def test_what_is_asked_by_event_is_answered_by_event(tmp_path: Path) -> None:
    context = ModuleContext(storage=FlatFileStorage(tmp_path), settings={"rag": {"embedding": {"provider": "none"}}})
    rag = RagModule()
    await rag.initialize(context.named("rag"))
    heard: list[tuple[str, dict[str, Any]]] = []

    async def hear(envelope: Any) -> None:
        heard.append((envelope.event, dict(envelope.data)))

    for event in ("rag.document.indexed", "rag.results.ready", "rag.indexing.complete", "rag.source.citation"):
        context.bus.on(event, envelope=True)(hear)
    told = {"source": b"figs and dates", "name": "fruit.txt", "user_id": "ann"}
    assert (await context.emit("rag.document.add", told)).failed == ()
    id_ = heard[0][1]["document_id"]
    await context.emit("rag.query", {"query": "dates", "user_id": "ann"})
    await context.emit("rag.index.update", {"user_id": "ann"})
    await context.emit("rag.source.verify", {"document_id": id_, "quote": "figs", "user_id": "ann"})
    assert [event for event, _ in heard] == [
        "rag.document.indexed", "rag.results.ready", "rag.indexing.complete", "rag.source.citation",
    ]  # fmt: skip
    assert heard[1][1]["results"][0]["text"] == "figs and dates"
    assert heard[3][1]["stands"] is True
    await rag.search_knowledge("dates", user_id="ann")
    assert "figs" not in str(heard[-1]), "who asked by call has the text; the event says only where it stands"
    failed = await context.emit("rag.document.add", {"name": "nothing"})
    assert failed.failed == ("modules.rag.rag_events.rag:rag.document.add",)
    assert await rag.health_check()
    await rag.close()
    assert (await context.emit("rag.query", {"query": "dates"})).handled == 0


async def test_long_work_goes_to_other_processes_where_there_are_some(tmp_path: Path) -> None:
    calls = []

    class Workers:
        async def run(self, function: Any, /, *args: Any) -> Any:
            calls.append(function.__qualname__)
            return await asyncio.to_thread(function, *args)

    context = ModuleContext(storage=FlatFileStorage(tmp_path), workers=Workers())
    rag = RagModule({"embedding": {"provider": "wordllama"}})
    await rag.initialize(context.named("rag"))
    await rag.add_document(b"figs and dates", name="fruit.txt")
    assert calls == [], "somebody waits for it"
    assert (await rag.update_embeddings(force=True)).indexed == 1
    assert calls == ["vectors_of"]
    (passage,) = await rag.search_knowledge("dates")
    assert passage.similarity is not None
    await rag.close()
