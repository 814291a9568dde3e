"""The old manager of vectors on the new store: a test for each of its calls."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFVectorSearchResultDTO
from migration.legacy_vectors import FFVectorStorageManager
from modules.core.layout import vector_index_id
from modules.core.storage import FlatFiles
from modules.rag.v2_sets import V2Sets


@pytest.fixture
def config(tmp_path):
    return SimpleNamespace(storage=SimpleNamespace(base_path=str(tmp_path)))


@pytest.fixture
def vectors(config):
    return FFVectorStorageManager(config)


def rows(*values):
    return np.array(values, np.float32)


async def test_store_vectors(vectors):
    assert await vectors.store_vectors("s", "d", ["one", "two"], rows([1, 0], [0, 1])) is True
    for chunks, wrong in ((["one"], rows([1, 0], [0, 1])), ([], rows()), (["one"], rows([1, 0, 0]))):
        with pytest.raises(ValueError, match=r"vectors?"):
            await vectors.store_vectors("s", "e", chunks, wrong)
    assert (await vectors.load_vectors("s"))[0].shape == (2, 2)


async def test_load_vectors(vectors):
    assert await vectors.load_vectors("missing") == (None, [])
    await vectors.store_vectors("s", "d", ["one two", "three"], rows([1, 0], [0, 1]), {"provider": "p", "model": "m"})
    array, lines = await vectors.load_vectors("s")
    assert isinstance(array, np.memmap)
    assert array.dtype == np.float32
    assert lines[0]["chunk_id"] == "d_chunk_0"
    assert lines[1]["vector_index"] == 1
    facts = {"position": 0, "total_chunks": 2, "char_count": 7, "word_count": 2}
    assert lines[0]["chunk_metadata"] == facts
    made = lines[0]["embedding_metadata"]
    assert (made["provider"], made["model"], made["dimensions"], made["normalized"]) == ("p", "m", 2, True)
    await vectors.store_vectors("s", "e", ["four"], [[0.6, 0.8]])
    assert (await vectors.load_vectors("s"))[0].dtype == np.float64  # as numpy stacks them


async def test_search_similar(vectors):
    assert await vectors.search_similar("missing", [1, 0]) == []
    await vectors.store_vectors("s", "d", ["east", "north", "near"], rows([1, 0], [0, 1], [0.8, 0.6]))
    found = await vectors.search_similar("s", [3, 0])
    assert [one.chunk_text for one in found] == ["east", "near"]  # cosines 1 and 0.8; the threshold is 0.7
    assert isinstance(found[0], FFVectorSearchResultDTO)
    assert [one.similarity_score for one in found] == pytest.approx([1.0, 0.9])
    assert [one.text for one in await vectors.search_similar("s", [1, 0], top_k=1, threshold=-1)] == ["east"]
    assert await vectors.search_similar("s", [0, 0]) == []
    with pytest.raises(ValueError, match="length 2"):
        await vectors.search_similar("s", [1, 0, 0])


async def test_search_similar_across_sessions(vectors):
    await vectors.store_vectors("s", "d", ["east"], rows([1, 0]))
    await vectors.store_vectors("t", "d", ["near"], rows([0.8, 0.6]))
    found = await vectors.search_similar_across_sessions(["t", "s", "missing"], [1, 0])
    assert [(one.session_id, one.chunk_text) for one in found] == [("s", "east"), ("t", "near")]
    assert len(await vectors.search_similar_across_sessions(["t", "s"], [1, 0], top_k=1)) == 1


async def test_delete_document_vectors(vectors, tmp_path):
    assert await vectors.delete_document_vectors("s", "d") is True
    await vectors.store_vectors("s", "d", ["east", "north"], rows([1, 0], [0, 1]))
    await vectors.store_vectors("s", "e", ["near"], rows([0.8, 0.6]))
    assert await vectors.delete_document_vectors("s", "d") is True
    array, lines = await vectors.load_vectors("s")
    assert array.shape == (1, 2)
    assert [line["document_id"] for line in lines] == ["e"]
    assert [one.chunk_text for one in await vectors.search_similar("s", [1, 0])] == ["near"]
    assert await vectors.delete_document_vectors("s", "e") is True
    assert await vectors.load_vectors("s") == (None, [])
    assert list((tmp_path / "rag/embeddings").iterdir()) == []


async def test_get_vector_stats(vectors):
    empty = {"total_vectors": 0, "total_documents": 0, "vector_dimensions": 0, "storage_size_bytes": 0}
    assert await vectors.get_vector_stats("s") == empty
    await vectors.store_vectors("s", "d", ["east"], rows([1, 0]), {"provider": "p"})
    stats = await vectors.get_vector_stats("s")
    assert stats["storage_size_bytes"] > 0
    assert {**stats, "storage_size_bytes": 0} == {
        **empty,
        "total_vectors": 1,
        "total_documents": 1,
        "vector_dimensions": 2,
        "providers_used": ["p"],
    }


async def test_a_set_belongs_to_who_has_the_session_and_the_platform_reads_it(vectors, config, tmp_path):
    session = await LegacyStorageAdapter(config).create_session("ann")
    await vectors.store_vectors(session, "d", ["east", "north"], rows([1, 0], [0, 1]))
    name = vector_index_id("ann", session)
    mapping = json.loads((tmp_path / f"rag/embeddings/{name}/mapping.json").read_text())
    assert (mapping["user_id"], mapping["rows"], mapping["orphan_rows"]) == ("ann", 2, [])
    sets = V2Sets(FlatFiles(tmp_path), lambda user: True)
    sets.load()
    cards = sets.cards("ann")
    (best, _) = sets.search("ann", name, np.array([1.0, 0.0]), 2, None, cards)
    assert best.text == "east"
    await vectors.store_vectors("nobody's", "d", ["x"], rows([1, 0]))
    assert (tmp_path / "rag/embeddings" / vector_index_id("default", "nobody's")).is_dir()
