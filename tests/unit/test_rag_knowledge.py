"""Parts of a user's knowledge: what is committed is there, what is not goes, and nothing of one is lost in another."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest

import modules.rag.knowledge as knowledge_module
from modules.core.clock import new_hex
from modules.rag.filters import Filter
from modules.rag.knowledge import Indexed, Knowledge, Ranking, prefix_of
from modules.rag.nearness import PartVectors, VectorsDamaged
from modules.rag.part import Part, Places, remove_directory
from modules.rag.passages import Card, Chunk
from tests.rag_documents import HashedWords, files_with

OPEN = Filter()
RANKING = Ranking(vector_weight=0.5, constant=30, min_similarity=0)
MODEL = "hashed-words"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(knowledge_module, "PART_ROWS", 8)
    return Places(tmp_path)


async def document(name: str, *texts: str, session: str | None = None) -> Indexed:
    chunks = [Chunk(name, number, text, 0, len(text)) for number, text in enumerate(texts)]
    return Indexed(Card(name, f"title of {name}", session), chunks, await HashedWords().embed(texts))


def names(places: Places) -> list[str]:
    directory = places.directory("")
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def reopened(places: Places, live: set[str]) -> Knowledge:
    return Knowledge.open(places, "ann", names(places), live, new_hex)


async def found(knowledge: Knowledge, query: str, wanted: Filter = OPEN) -> set[str]:
    vector = (await HashedWords().embed([query]))[0]
    return {one.document_id for one in knowledge.search(query, vector, 100, MODEL, wanted, RANKING)}


async def filled(places: Places, documents: int = 12) -> Knowledge:
    knowledge = Knowledge(places, "ann", (), new_hex)
    for number in range(documents):
        one = await document(f"d{number}", f"apple {number}", f"pear of {number}", session=f"s{number % 3}")
        knowledge.add([one], MODEL)
    return knowledge


async def test_knowledge_is_kept_in_parts_of_a_bounded_size_and_found_across_them(places: Places) -> None:
    knowledge = await filled(places)
    parts = names(places)
    assert len(parts) == 3
    assert all(name.startswith(prefix_of("ann")) for name in parts)
    assert await found(knowledge, "apple") == {f"d{number}" for number in range(12)}
    assert len(knowledge) == 24


async def test_a_full_part_has_all_files_and_numpy_and_json_read_them(places: Places) -> None:
    await filled(places, 5)
    name = next(name for name in names(places) if (places.directory(name) / "index.faiss").exists())
    home = places.directory(name)
    assert {path.name for path in home.iterdir()} == {"chunks.jsonl", "index.faiss", "mapping.json", "vectors.npy"}
    vectors = np.load(home / "vectors.npy")
    assert (vectors.shape, vectors.dtype) == ((8, 64), np.float32)
    mapping = json.loads((home / "mapping.json").read_bytes())
    assert (mapping["user_id"], mapping["rows"], mapping["next_id"], mapping["model"]) == ("ann", 8, 8, MODEL)
    lines = [json.loads(line) for line in (home / "chunks.jsonl").read_text().splitlines()]
    assert [line["chunk_id"] for line in lines[:2]] == ["d0_chunk_0", "d0_chunk_1"]


async def test_it_is_the_same_after_it_was_closed_and_after_it_was_not(places: Places) -> None:
    live = {f"d{number}" for number in range(12)}
    knowledge = await filled(places)
    assert await found(reopened(places, live), "pear") == live
    knowledge.close()
    again = reopened(places, live)
    assert await found(again, "pear") == live
    again.add([await document("d12", "apple again")], MODEL)
    assert "d12" in await found(again, "apple")


async def test_what_is_taken_out_leaves_no_byte_and_ids_are_not_used_again(places: Places, tmp_path: Path) -> None:
    knowledge = await filled(places)
    knowledge.add([await document("secret", "tamarind", "tamarind twice")], MODEL)
    assert knowledge.remove(["secret", "d0"]) == 4
    assert files_with(tmp_path, "tamarind") == []
    assert await found(knowledge, "tamarind apple") == {f"d{number}" for number in range(1, 12)}
    knowledge.add([await document("e", "apple new")], MODEL)
    assert "e" in await found(knowledge, "apple")
    for name in names(places):
        ids = [json.loads(line)["id"] for line in (places.directory(name) / "chunks.jsonl").read_text().splitlines()]
        assert ids == sorted(set(ids))
        assert max(ids) < json.loads((places.directory(name) / "mapping.json").read_bytes())["next_id"]


async def test_a_word_weighs_the_same_in_a_small_part_as_in_a_large_one(places: Places) -> None:
    knowledge = await filled(places, 11)
    knowledge.add([await document("small", "quince")], MODEL)
    knowledge.add([await document("other", *(["filler"] * 8))], MODEL)
    alone = knowledge.search("quince", None, 5, MODEL, OPEN, RANKING)
    common = knowledge.search("apple", None, 5, MODEL, OPEN, RANKING)
    assert alone[0].word_score is not None
    assert common[0].word_score is not None
    assert alone[0].word_score > common[0].word_score


async def test_a_filter_holds_in_every_part_for_words_and_vectors(places: Places) -> None:
    knowledge = await filled(places)
    expected = {f"d{number}" for number in range(12) if number % 3 == 1}
    assert await found(knowledge, "apple", Filter(session_id="s1")) == expected
    vector = (await HashedWords().embed(["apple"]))[0]
    assert {one.document_id for one in knowledge.nearest(vector, 99, MODEL, Filter(session_id="s1"))} == expected
    assert knowledge.nearest(vector, 99, MODEL, Filter(document_ids=frozenset())) == []


async def test_vectors_of_another_model_are_not_compared(places: Places) -> None:
    knowledge = await filled(places, 3)
    vector = (await HashedWords("other").embed(["apple"]))[0]
    assert knowledge.nearest(vector, 5, "other", OPEN) == []
    assert knowledge.outdated("other") == {"d0", "d1", "d2"}


async def test_indexing_anew_moves_a_document_whole(places: Places) -> None:
    knowledge = await filled(places, 6)
    other = HashedWords("other", 32)
    renewed = [Indexed(Card("d1", "new title"), [Chunk("d1", 0, "apple 1")], await other.embed(["apple 1"]))]
    knowledge.replace(renewed, "other")
    assert knowledge.outdated("other") == {f"d{number}" for number in range(6)} - {"d1"}
    (hit,) = knowledge.nearest((await other.embed(["apple 1"]))[0], 5, "other", OPEN)
    assert (hit.citation.title, len(knowledge)) == ("new title", 11)


@pytest.mark.slow
async def test_a_full_part_is_searched_by_less_and_finds_the_same(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowledge_module, "PART_ROWS", 400)
    knowledge = Knowledge(places, "ann", (), new_hex)
    texts = [f"word{number % 37} word{number % 41} word{number}" for number in range(1000)]
    for start in range(0, 1000, 50):
        knowledge.add([await document(f"d{start}", *texts[start : start + 50])], MODEL)
    vectors = await HashedWords().embed(texts)
    parts = [(places.directory(name) / "index.faiss").is_file() for name in names(places)]
    assert parts.count(True) == 2
    for query in vectors[::97]:
        best = np.sort(vectors @ query)[::-1][:20]
        found = knowledge.nearest(query, 20, MODEL, OPEN)
        assert [one.score for one in found] == pytest.approx(best.tolist(), abs=1e-5)


async def test_a_document_that_is_larger_than_a_part_has_one_of_its_own(places: Places) -> None:
    knowledge = await filled(places, 1)
    knowledge.add([await document("large", *(f"fig {number}" for number in range(30)))], MODEL)
    assert len(knowledge.search("fig", None, 100, MODEL, OPEN, RANKING)) == 30
    knowledge.add([await document("small", "fig")], MODEL)
    assert len(names(places)) == 2


async def test_texts_without_words_are_kept_without_vectors(places: Places) -> None:
    knowledge = Knowledge(places, "ann", (), new_hex)
    chunks = [Chunk("d", 0, "---")]
    knowledge.add([Indexed(Card("d"), chunks, np.zeros((1, 0), np.float32))], MODEL)
    knowledge.add([await document("e", "apple")], MODEL)
    assert await found(reopened(places, {"d", "e"}), "apple") == {"e"}
    assert reopened(places, {"d", "e"}).outdated(MODEL) == set()


async def test_what_was_cut_short_while_it_was_added_goes(places: Places) -> None:
    await filled(places, 2)
    (name,) = names(places)
    home = places.directory(name)
    with (home / "chunks.jsonl").open("ab") as file:
        file.write(b'{"id":4,"document_id":"half"')
    with (home / "vectors.npy").open("ab") as file:
        file.write(b"\1" * 100)
    knowledge = reopened(places, {"d0", "d1"})
    assert await found(knowledge, "apple") == {"d0", "d1"}
    assert np.load(home / "vectors.npy").shape == (4, 64)
    assert b"half" not in (home / "chunks.jsonl").read_bytes()


async def test_documents_that_are_not_there_any_more_go_when_it_is_opened(places: Places, tmp_path: Path) -> None:
    await filled(places)
    knowledge = reopened(places, {"d3", "d7"})
    assert knowledge.documents.keys() == {"d3", "d7"}
    assert files_with(tmp_path, "title of d5") == []


async def test_words_that_were_lost_are_made_again(places: Places) -> None:
    await filled(places, 4)
    (name,) = names(places)
    for path in places.words(name).iterdir():
        path.unlink(missing_ok=True)  # the index's own thread may still be clearing up
    assert await found(reopened(places, {f"d{number}" for number in range(4)}), "apple") == {"d0", "d1", "d2", "d3"}
    for path in places.words(name).glob("*.term"):
        path.write_bytes(b"damaged")
    (places.words(name) / "meta.json").write_text("{")
    assert await found(reopened(places, {f"d{number}" for number in range(4)}), "apple") == {"d0", "d1", "d2", "d3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mapping.json", b"{"),
        ("mapping.json", None),
        ("chunks.jsonl", b"short"),
        ("chunks.jsonl", None),
        ("vectors.npy", b"short"),
        ("vectors.npy", None),
    ],
)
async def test_a_damaged_part_is_given_up_and_its_documents_are_missing(
    places: Places, caplog: pytest.LogCaptureFixture, file: str, content: bytes | None
) -> None:
    await filled(places)
    damaged = places.directory(names(places)[0]) / file
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    knowledge = reopened(places, {f"d{number}" for number in range(12)})
    assert len(knowledge.documents) == 8
    assert "damaged and given up" in caplog.text
    assert len(names(places)) == 2


async def test_a_search_index_that_cannot_be_read_is_made_again(places: Places) -> None:
    (await filled(places, 4)).close()
    index = places.directory(names(places)[0]) / "index.faiss"
    index.write_bytes(b"damaged")
    assert await found(reopened(places, {f"d{number}" for number in range(4)}), "apple") == {"d0", "d1", "d2", "d3"}


async def test_a_part_that_stands_for_another_takes_its_place(places: Places) -> None:
    await filled(places, 4)
    (name,) = names(places)
    part = Part.open(places, name)
    later = f"{prefix_of('ann')}later"
    assert part.without({"d0"}, later) is not None
    assert len(names(places)) == 2
    knowledge = reopened(places, {f"d{number}" for number in range(4)})
    assert (names(places), knowledge.documents.keys()) == ([later], {"d1", "d2", "d3"})


async def test_a_reader_of_a_part_goes_on_while_it_is_replaced(places: Places) -> None:
    knowledge = await filled(places, 4)
    (held,) = knowledge._parts
    knowledge.remove(["d0"])
    assert [chunk.text for chunk in held.chunks_of(["d0"])] == ["apple 0", "pear of 0"]
    vector = (await HashedWords().embed(["apple"]))[0]
    ids = held.nearest(vector.reshape(1, -1), 8, None)[1]
    assert len(held.similarities(vector.reshape(1, -1), ids)) == 8


def test_a_vector_file_that_is_too_short_is_not_taken(tmp_path: Path) -> None:
    PartVectors.write(tmp_path, np.ones((2, 4), np.float32))
    with pytest.raises(VectorsDamaged):
        PartVectors(tmp_path, 4, np.arange(3))


def test_a_directory_goes_while_somebody_still_writes_where_it_was(tmp_path: Path) -> None:
    """As tantivy does: it watches an index that it opened, and makes a lock file there when it sees a change."""
    directory, done = tmp_path / "words", threading.Event()

    def write() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                (directory / "lock").touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            directory.mkdir()
            (directory / "file").touch()
            remove_directory(directory)
    finally:
        done.set()
        writer.join()
    assert list(tmp_path.iterdir()) == []
