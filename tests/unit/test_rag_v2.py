"""What a migration brought is known at once, searched, embedded anew beside what v2 left, and deleted with it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from migration.sample import write_sample
from migration.storage_mapper import StorageMapper
from modules.core.errors import NotFound, ValidationError
from modules.rag import RagModule
from tests.rag_documents import HashedWords, files_with, opened

pytestmark = pytest.mark.slow

OWNER, LOOSE = "lukas", "nora"


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("rag")
    write_sample(place / "old")
    StorageMapper(place / "old", place / "new").migrate_sessions()
    return place / "new"


@pytest.fixture
def base(migrated: Path, tmp_path: Path) -> Path:
    shutil.copytree(migrated, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
async def rag(base: Path) -> AsyncIterator[RagModule]:
    module = await opened(base, HashedWords())
    yield module
    await module.close()


def sets(base: Path) -> dict[str, bytes]:
    """Every file of v2's vector sets."""
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.glob("rag/embeddings/v2_*/*"))}


async def v2_index(rag: RagModule, user_id: str) -> dict:
    return next(one for one in await rag.list_indexes(user_id) if one["index"].startswith("v2_"))


async def test_migrated_documents_are_listed_with_what_v2_knew_of_them(rag: RagModule) -> None:
    documents = (await rag.list_documents(OWNER)).documents
    titles = {document.title for document in documents}
    assert {"Q3 report (final).pdf", "résumé – Zoë.md", "pixel.png"} <= titles
    report = next(document for document in documents if document.title.startswith("Q3"))
    assert report.metadata["topic"] == "soil"
    assert report.session_id is not None


async def test_searching_has_what_stands_in_migrated_files_indexed(rag: RagModule) -> None:
    async with asyncio.timeout(60):
        while (await rag.index_status(OWNER)).waiting:
            found = await rag.search_knowledge("quarterly report on soil moisture", 3, user_id=OWNER)
    found = await rag.search_knowledge("quarterly report on soil moisture", 3, user_id=OWNER)
    assert any("soil moisture" in passage.text and passage.citation.start is not None for passage in found)
    status = await rag.index_status(OWNER)
    assert status.waiting == 0
    assert any("v2 had only its entry" in reason for reason in status.unreadable.values())
    assert any(".png" in reason for reason in status.unreadable.values())


async def test_chunks_whose_document_v2_had_lost_are_found_as_well(rag: RagModule) -> None:
    await rag.update_embeddings(user_id=LOOSE)
    (document,) = (await rag.list_documents(LOOSE)).documents
    assert document.title == "doc123"
    found = await rag.search_knowledge("explain the experiment", 1, user_id=LOOSE)
    assert found[0].document_id == document.id


async def test_embedding_anew_leaves_v2s_vectors_byte_for_byte_and_searchable(rag: RagModule, base: Path) -> None:
    before = sets(base)
    report = await rag.update_embeddings(user_id=OWNER)
    assert report.indexed == 5
    assert (await rag.update_embeddings(user_id=OWNER)).indexed == 0
    assert sets(base) == before
    index = await v2_index(rag, OWNER)
    stored = np.load(base / "rag/embeddings" / index["index"] / "vectors.npy")
    mapping = json.loads((base / "rag/embeddings" / index["index"] / "mapping.json").read_bytes())
    for rows in list(mapping["chunk_ids"].values())[:2]:
        (best, *_) = await rag.search_by_vector(stored[rows[0]], 1, user_id=OWNER, index=index["index"])
        assert best.score == pytest.approx(1)
    with pytest.raises(ValidationError, match="length 384"):
        await rag.search_by_vector([1.0, 2.0], user_id=OWNER, index=index["index"])
    with pytest.raises(NotFound):
        await rag.search_by_vector(stored[0], user_id=LOOSE, index=index["index"])


async def test_metadata_of_migrated_documents_is_never_written_again(rag: RagModule, base: Path) -> None:
    before = {path: path.read_bytes() for path in base.glob("rag/documents/*/metadata.json")}
    for user_id in (OWNER, LOOSE):
        await rag.update_embeddings(force=True, user_id=user_id)
    assert {path: path.read_bytes() for path in base.glob("rag/documents/*/metadata.json")} == before


async def test_a_file_that_a_further_migration_brought_anew_is_read_anew(rag: RagModule, base: Path) -> None:
    await rag.update_embeddings(user_id=OWNER)
    documents = (await rag.list_documents(OWNER)).documents
    document = next(one for one in documents if one.title.endswith(".txt") and one.state == "indexed")
    (original,) = base.glob(f"rag/documents/{document.id}/original*")
    original.write_text("quite another text about walruses")
    report = await rag.update_embeddings([document.id], force=True, user_id=OWNER)
    assert report.indexed == 1
    (best, *_) = await rag.search_knowledge("walruses", 1, user_id=OWNER)
    assert best.document_id == document.id


async def test_a_filter_holds_for_v2s_vectors(rag: RagModule) -> None:
    index = await v2_index(rag, OWNER)
    every = await rag.search_by_vector([0.1] * 384, 100, user_id=OWNER, index=index["index"])
    wanted = every[0].document_id
    some = await rag.search_by_vector([0.1] * 384, 100, {"document_id": wanted}, user_id=OWNER, index=index["index"])
    assert {one.document_id for one in some} == {wanted} != {one.document_id for one in every}


async def test_deleting_a_migrated_document_reaches_v2s_vectors_and_lines(rag: RagModule, base: Path) -> None:
    await rag.update_embeddings(user_id=OWNER)
    index = await v2_index(rag, OWNER)
    every = await rag.search_by_vector([0.1] * 384, 100, user_id=OWNER, index=index["index"])
    doomed = [one for one in every if one.document_id == every[0].document_id]
    kept = [one for one in every if one.document_id != every[0].document_id]
    await rag.delete_document(every[0].document_id, user_id=OWNER)
    for passage in doomed:
        assert files_with(base / "rag", passage.text) == []
    left = await rag.search_by_vector([0.1] * 384, 100, user_id=OWNER, index=index["index"])
    assert {(one.text, round(one.score, 9)) for one in left} == {(one.text, round(one.score, 9)) for one in kept}
    vectors = np.load(base / "rag/embeddings" / index["index"] / "vectors.npy")
    assert (vectors == 0).all(axis=1).sum() == len(doomed)


async def test_deleting_the_last_document_of_a_set_removes_the_set(rag: RagModule, base: Path) -> None:
    (document,) = (await rag.list_documents(LOOSE)).documents
    before = len(sets(base))
    await rag.delete_document(document.id, user_id=LOOSE)
    assert len(sets(base)) == before - 4
    assert (await rag.list_documents(LOOSE)).documents == ()


async def test_erasing_a_user_takes_v2s_sets_with_it(rag: RagModule, base: Path) -> None:
    await rag.update_embeddings(user_id=OWNER)
    texts = [chunk["text"] for one in (await rag.export_user(OWNER))["documents"] for chunk in one["chunks"]]
    assert texts
    await rag.erase_user(OWNER)
    for text in [*texts, OWNER, "soil moisture"]:
        assert files_with(base / "rag", text) == []


async def test_what_waits_is_indexed_without_anybody_asking(rag: RagModule) -> None:
    assert await rag.index_waiting() >= 5
    assert await rag.index_waiting() == 0
    assert (await rag.index_status(OWNER)).waiting == 0


async def test_nothing_is_indexed_unasked_where_the_settings_say_so(base: Path) -> None:
    rag = await opened(base, HashedWords(), indexing={"background": False})
    assert await rag.index_waiting() == 0
    assert (await rag.index_status(OWNER)).waiting > 0
    await rag.close()


async def test_a_registry_that_is_lost_or_damaged_is_made_again_from_the_documents(base: Path) -> None:
    path = base / "rag/indices/document_registry.json"
    before = json.loads(path.read_bytes())
    for damage in (b"{", None):
        path.unlink() if damage is None else path.write_bytes(damage)
        rag = await opened(base)
        await rag.close()
        assert json.loads(path.read_bytes()) == before


async def test_a_set_that_cannot_be_read_is_left_out_and_said(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    (base / "rag/embeddings/v2_broken").mkdir()
    (base / "rag/embeddings/v2_broken/mapping.json").write_text("[")
    rag = await opened(base)
    assert "v2_broken" in caplog.text
    assert (await rag.list_documents(OWNER)).documents
    await rag.close()
