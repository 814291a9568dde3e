"""Rag as its callers see it: what is put in is found, by whom it belongs to; what is taken out is gone."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from modules.core.errors import ConfigurationError, Conflict, NotFound, ValidationError
from modules.rag import RagModule, UnreadableDocument, UnsupportedDocument
from tests.rag_documents import HashedWords, files_with, opened, pdf, texts_of

SPICE = b"Cloves come from Zanzibar. Nutmeg comes from the Banda islands. Both were worth their weight in gold."
SHIPS = b"The clipper was a fast sailing ship. It carried tea from China to London in under a hundred days."


@pytest.fixture
def model() -> HashedWords:
    return HashedWords()


@pytest.fixture
async def rag(tmp_path: Path, model: HashedWords):
    module = await opened(tmp_path, model)
    yield module
    await module.close()


async def test_a_document_is_found_as_soon_as_it_is_in_and_is_cited_where_it_stands(rag: RagModule) -> None:
    added = await rag.add_document(SPICE, name="spice.txt", user_id="ann")
    await rag.add_document(SHIPS, name="ships.txt", user_id="ann")
    best = (await rag.search_knowledge("where do cloves come from", user_id="ann"))[0]
    assert best.citation.document_id == added.id
    assert best.citation.title == "spice.txt"
    assert SPICE.decode()[best.citation.start : best.citation.end] == best.text
    assert best.similarity is not None
    assert best.word_score is not None


@pytest.mark.slow
async def test_a_page_of_a_pdf_is_part_of_its_citation(rag: RagModule) -> None:
    await rag.add_document(
        pdf("Nothing of note", "The cassowary cannot fly"), name="birds.pdf", chunking_strategy="fixed"
    )
    found = await rag.search_knowledge("cassowary")
    assert found[0].citation.page in (1, 2)
    assert (await rag.extract_text(pdf("one", "two"), name="x.pdf")).pages == (0, 5)


async def test_nobody_finds_what_is_another_users(rag: RagModule) -> None:
    added = await rag.add_document(SPICE, name="spice.txt", user_id="ann")
    for user_id in ("bob", "", "ann2"):
        assert await rag.search_knowledge("cloves from Zanzibar", user_id=user_id) == []
        assert await rag.search_by_vector([1.0] * 64, user_id=user_id) == []
        assert (await rag.get_relevant_context("cloves from Zanzibar", user_id=user_id)).text == ""
        assert (await rag.list_documents(user_id)).documents == ()
        for ask in (rag.get_document, rag.read_original, rag.delete_document):
            with pytest.raises(NotFound):
                await ask(added.id, user_id=user_id)
        with pytest.raises(NotFound):
            await rag.verify_source(added.id, "Cloves", user_id=user_id)
        with pytest.raises(NotFound):
            await rag.update_embeddings([added.id], user_id=user_id)
        assert (await rag.export_user(user_id))["documents"] == []
    with pytest.raises(ValidationError, match="another user"):
        await rag.search_knowledge("cloves", filters={"user_id": "ann"}, user_id="bob")


@pytest.mark.slow
async def test_a_search_within_a_session_finds_its_documents_and_those_of_no_session(rag: RagModule) -> None:
    for session, text in (("s1", b"apples in one"), ("s2", b"apples in two"), (None, b"apples in none")):
        await rag.add_document(text, name=f"{session}.txt", session_id=session)
    found = await rag.search_knowledge("apples", session_id="s1")
    assert sorted(texts_of(found)) == ["apples in none", "apples in one"]
    exact = await rag.search_knowledge("apples", filters={"session_id": "s1"})
    assert texts_of(exact) == ["apples in one"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"metadata": {"year": 2024}}, {"a"}),
        ({"metadata": {"year": [2024, 2025]}}, {"a", "b"}),
        ({"metadata": {"tags": "red"}}, {"a", "c"}),
        ({"metadata": {"tags": "red", "year": 2026}}, {"c"}),
        ({"metadata": {"year": "2024"}}, set()),
        ({"metadata": {"absent": None}}, {"a", "b", "c"}),
        ({"document_ids": []}, set()),
        ({}, {"a", "b", "c"}),
    ],
)
async def test_filters_hold_for_words_and_for_meaning(rag: RagModule, filters: dict, expected: set[str]) -> None:
    for name, metadata in (
        ("a", {"year": 2024, "tags": ["red", "blue"]}),
        ("b", {"year": 2025, "tags": []}),
        ("c", {"year": 2026, "tags": "red"}),
    ):
        await rag.add_document(f"pears of {name}".encode(), metadata, name=f"{name}.txt")
    found = await rag.search_knowledge("pears", 10, filters)
    assert {passage.text[-1] for passage in found} == expected
    nearest = await rag.search_by_vector((await HashedWords().embed(["pears"]))[0], 10, filters)
    assert {passage.text[-1] for passage in nearest} == expected


@pytest.mark.parametrize(
    "filters", [{"users": "x"}, {"metadata": "x"}, {"document_ids": "doc"}, {"session_id": 3}, "x", {"document_id": 1}]
)
async def test_a_filter_that_is_none_is_refused(rag: RagModule, filters: object) -> None:
    with pytest.raises(ValidationError):
        await rag.search_knowledge("pears", filters=filters)


@pytest.mark.slow
async def test_adding_the_same_again_changes_nothing_and_adding_it_otherwise_is_another_document(
    rag: RagModule,
) -> None:
    first = await rag.add_document(SPICE, {"a": 1}, name="spice.txt")
    again = await asyncio.gather(*(rag.add_document(SPICE, {"a": 1}, name="spice.txt") for _ in range(5)))
    assert {one.id for one in again} == {first.id}
    other = await rag.add_document(SPICE, {"a": 2}, name="spice.txt")
    assert other.id != first.id
    assert len((await rag.list_documents()).documents) == 2


async def test_a_deleted_document_is_gone_from_every_search_and_every_file(rag: RagModule, tmp_path: Path) -> None:
    doomed = await rag.add_document(SPICE, name="zanzibar.txt")
    kept = await rag.add_document(SHIPS, name="ships.txt")
    deletion = await rag.delete_document(doomed.id)
    assert deletion.chunks == doomed.chunks
    assert {one.document_id for one in await rag.search_knowledge("cloves from Zanzibar tea")} == {kept.id}
    assert files_with(tmp_path, "zanzibar") == []
    assert files_with(tmp_path, "nutmeg") == []
    with pytest.raises(NotFound):
        await rag.delete_document(doomed.id)


async def test_of_an_erased_user_no_byte_is_left_and_of_others_all(rag: RagModule, tmp_path: Path) -> None:
    for number in range(3):
        await rag.add_document(
            SPICE + b" " + str(number).encode(), {"secret": "saffron"}, name=f"zanzibar{number}.txt", user_id="ann"
        )
    await rag.add_document(SHIPS, name="ships.txt", user_id="bob")
    erasure = await rag.erase_user("ann")
    assert erasure.documents == 3
    assert erasure.chunks >= 3
    for needle in ("zanzibar", "nutmeg", "saffron", '"ann"'):
        assert files_with(tmp_path, needle) == []
    assert await rag.search_knowledge("cloves", user_id="ann") == []
    assert len(await rag.search_knowledge("clipper", user_id="bob")) == 1
    assert (await rag.erase_user("ann")).documents == 0


@pytest.mark.slow
async def test_what_is_being_read_while_its_user_is_erased_is_not_put_in_afterwards(
    rag: RagModule, tmp_path: Path
) -> None:
    adding = [asyncio.create_task(rag.add_document(SPICE, name=f"{n}.txt", user_id="ann")) for n in range(5)]
    await asyncio.sleep(0.01)
    await rag.erase_user("ann")
    await asyncio.gather(*adding, return_exceptions=True)
    assert (await rag.list_documents("ann")).documents == ()
    assert files_with(tmp_path, "nutmeg") == []


@pytest.mark.slow
async def test_an_export_has_everything(rag: RagModule) -> None:
    added = await rag.add_document(SPICE, {"a": 1}, name="spice.txt", user_id="ann", session_id="s")
    exported = await rag.export_user("ann")
    (document,) = exported["documents"]
    assert (document["id"], document["session_id"], document["metadata"]) == (added.id, "s", {"a": 1})
    assert base64.b64decode(document["file"]["base64"]) == SPICE
    assert document["chunks"][0]["text"] == SPICE.decode()


@pytest.mark.slow
async def test_everything_is_there_after_a_restart(tmp_path: Path, model: HashedWords) -> None:
    first = await opened(tmp_path, model)
    added = await first.add_document(SPICE, {"a": [1]}, name="spice.txt", user_id="ann", session_id="s")
    await first.close()
    second = await opened(tmp_path, model)
    assert await second.get_document(added.id, user_id="ann") == added
    assert await second.read_original(added.id, user_id="ann") == SPICE
    (found,) = await second.search_knowledge("cloves", user_id="ann")
    assert (found.metadata, found.session_id) == ({"a": [1]}, "s")
    await second.add_document(SHIPS, name="ships.txt", user_id="ann")
    assert (await second.index_status("ann")).chunks == 2
    await second.close()


@pytest.mark.slow
async def test_without_a_model_search_goes_by_words_and_vectors_come_with_one(
    tmp_path: Path, model: HashedWords
) -> None:
    plain = await opened(tmp_path)
    added = await plain.add_document(SPICE, name="spice.txt")
    assert added.chunking_strategy == "sentence"
    (found,) = await plain.search_knowledge("nutmeg")
    assert found.similarity is None
    await plain.close()
    embedding = await opened(tmp_path, model)
    assert (await embedding.index_status()).outdated == 1
    report = await embedding.update_embeddings()
    assert (report.indexed, report.unchanged) == (1, 0)
    (found,) = await embedding.search_knowledge("nutmeg")
    assert found.similarity is not None
    assert (await embedding.update_embeddings()).indexed == 0
    assert (await embedding.update_embeddings(force=True)).indexed == 1
    assert (await embedding.index_status()).chunks == 1
    await embedding.close()


@pytest.mark.slow
async def test_while_the_model_is_away_search_goes_by_words(rag: RagModule, model: HashedWords) -> None:
    await rag.add_document(SPICE, name="spice.txt")
    model.is_away = True
    (found,) = await rag.search_knowledge("nutmeg")
    assert found.similarity is None


@pytest.mark.slow
async def test_a_context_is_within_its_tokens_and_says_what_each_mark_stands_for(rag: RagModule) -> None:
    for number in range(20):
        await rag.add_document(f"Fact {number} about cloves: {'they smell. ' * 20}".encode(), name=f"fact{number}.txt")
    context = await rag.get_relevant_context("cloves", 200)
    assert 0 < context.tokens <= 200
    assert context.text.startswith("[1] fact")
    assert len(context.citations) == context.text.count("[")
    assert (await rag.get_relevant_context("cloves", 10)).text == ""
    short = await rag.get_relevant_context("cloves", 30)
    assert 0 < short.tokens <= 30


@pytest.mark.slow
async def test_a_quote_is_checked_against_its_source(rag: RagModule) -> None:
    added = await rag.add_document(SPICE, name="spice.txt")
    right = await rag.verify_source(added.id, "Nutmeg  comes from\nthe Banda islands")
    assert right.stands
    assert right.citation is not None
    assert not (await rag.verify_source(added.id, "Nutmeg comes from Zanzibar")).stands
    assert not (await rag.verify_source(added.id, "Cloves", start=500, end=600)).stands


@pytest.mark.slow
async def test_documents_are_listed_page_by_page(rag: RagModule) -> None:
    added = [
        await rag.add_document(f"text {n}".encode(), name=f"{n}.txt", session_id="s" if n % 2 else None)
        for n in range(7)
    ]
    seen, after = [], None
    while True:
        page = await rag.list_documents(limit=3, after=after)
        seen += [one.id for one in page.documents]
        if not page.has_more:
            break
        after = seen[-1]
    assert seen == sorted(one.id for one in added)
    assert len((await rag.list_documents(session_id="s")).documents) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "given", "error"),
    [
        (b"", {"name": "a.txt"}, UnreadableDocument),
        (b"  \n ", {"name": "a.txt"}, UnreadableDocument),
        (b"x", {"name": "a.exe"}, UnsupportedDocument),
        (b"x", {"name": "a.txt", "metadata": {"a": object()}}, ValidationError),
        (b"x", {"name": "a.txt", "metadata": {"a": "x" * 70_000}}, ValidationError),
        (b"x", {"name": "a.txt", "metadata": {"a": float("nan")}}, ValidationError),
        (b"x", {"name": "a.txt", "chunking_strategy": "magic"}, ValidationError),
        (b"x", {"name": "a.txt", "user_id": None}, ValidationError),
        (12, {"name": "a.txt"}, ValidationError),
        ("/nowhere/at/all.txt", {}, NotFound),
    ],
)
async def test_what_cannot_be_taken_in_is_refused_and_leaves_nothing(
    rag: RagModule, tmp_path: Path, source: object, given: dict, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await rag.add_document(source, **given)
    assert not (tmp_path / "rag/documents").exists()
    assert (await rag.list_documents()).documents == ()


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("search_knowledge", {"query": " "}),
        ("search_knowledge", {"query": "x", "top_k": 0}),
        ("search_knowledge", {"query": "x" * 200_000}),
        ("search_by_vector", {"vector": []}),
        ("search_by_vector", {"vector": ["a"]}),
        ("search_by_vector", {"vector": [float("nan")]}),
        ("get_relevant_context", {"query": "x", "max_tokens": -1}),
        ("list_documents", {"limit": 0}),
    ],
)
async def test_arguments_that_mean_nothing_are_refused(rag: RagModule, call: str, given: dict) -> None:
    with pytest.raises(ValidationError):
        await getattr(rag, call)(**given)


@pytest.mark.slow
async def test_a_file_is_taken_by_its_path_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.txt").write_text("outside")
    (tmp_path / "in/good.txt").write_text("inside")
    (tmp_path / "in/link.txt").symlink_to(tmp_path / "out.txt")
    rag = await opened(tmp_path / "base", parsing={"local_directories": [tmp_path / "in"]})
    assert (await rag.add_document(tmp_path / "in/good.txt")).title == "good.txt"
    for path in (tmp_path / "out.txt", tmp_path / "in/link.txt", tmp_path / "in/../out.txt"):
        with pytest.raises(ValidationError):
            await rag.add_document(str(path))
    await rag.close()


@pytest.mark.slow
async def test_a_user_may_have_no_more_documents_than_the_settings_say(tmp_path: Path) -> None:
    rag = await opened(tmp_path, max_documents_per_user=2)
    for number in range(2):
        await rag.add_document(b"text", name=f"{number}.txt")
    with pytest.raises(Conflict, match="may have no more"):
        await rag.add_document(b"text", name="three.txt")
    assert len((await rag.list_documents()).documents) == 2
    await rag.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"chunking": {"chunk_size": 100, "chunk_overlap": 100}},
        {"chunking": {"strategy": "magic"}},
        {"retrieval": {"vector_weight": 2}},
        {"retrieval": {"top_k": 0}},
        {"parsing": {"extensions": [".exe"]}},
        {"parsing": {"local_directories": "/"}},
        {"indexing": {"background": 1}},
        {"embedding": "x"},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigurationError):
        RagModule(settings)


@pytest.mark.slow
async def test_adds_searches_and_deletes_at_once_lose_nothing(rag: RagModule) -> None:
    first = await asyncio.gather(*(rag.add_document(f"melon {n} ripe".encode(), name=f"{n}.txt") for n in range(20)))

    async def searching() -> None:
        for _ in range(30):
            for passage in await rag.search_knowledge("ripe melon", 50):
                assert "ripe" in passage.text

    await asyncio.gather(
        *(rag.delete_document(one.id) for one in first[:10]),
        *(rag.add_document(f"melon {n} ripe".encode(), name=f"{n}.txt") for n in range(20, 40)),
        *(searching() for _ in range(4)),
    )
    found = {passage.document_id for passage in await rag.search_knowledge("ripe melon", 100)}
    assert found == {one.id for one in (await rag.list_documents()).documents}
    assert len(found) == 30


@pytest.mark.slow
async def test_users_beyond_the_number_held_open_are_closed_and_opened_again(
    tmp_path: Path, model: HashedWords
) -> None:
    rag = await opened(tmp_path, model, indexing={"max_open_users": 2})
    for number in range(6):
        await rag.add_document(f"plums of user {number}".encode(), name="p.txt", user_id=f"u{number}")
    for number in range(6):
        assert texts_of(await rag.search_knowledge("plums", user_id=f"u{number}")) == [f"plums of user {number}"]
    await rag.close()
