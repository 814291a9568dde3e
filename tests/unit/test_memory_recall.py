"""What is found again: by words and by meaning, worth keeping, and within the window of a prompt."""

from __future__ import annotations

import json

import pytest

from modules.core.errors import Conflict, ValidationError
from modules.memory import MemoryModule
from tests.memory_platform import AnimalEmbedder, clock, keys, migrated_context, start

__all__ = ["clock", "start"]  # fixtures

BANK = "memory/long_term/ann/memory_bank.jsonl"
JOURNAL = "memory/short_term/ann/.items.jsonl"


# -- search --------------------------------------------------------------------------------------------------


async def test_search_ranks_by_words_over_both_kinds(start):
    memory = await start()
    await memory.store_memory("pet", "Ann has a dog, the dog is called Rex", "long_term", user_id="ann")
    await memory.store_memory("walk", "walked the dog in the park with friends from the old school", user_id="ann")
    await memory.store_memory("food", "likes rice", user_id="ann")

    assert keys(await memory.search_memories("dog", user_id="ann")) == ["pet", "walk"]
    assert keys(await memory.search_memories("DOG", "short_term", user_id="ann")) == ["walk"]
    assert keys(await memory.search_memories("dog", limit=1, user_id="ann")) == ["pet"]
    assert await memory.search_memories("piano", user_id="ann") == []
    await memory.store_memory("piano", "plays the piano", user_id="ann")
    assert keys(await memory.search_memories("piano", user_id="ann")) == ["piano"]
    for wrong in ({"query": " "}, {"query": "x", "limit": 0}, {"query": "x", "memory_type": "some"}):
        with pytest.raises(ValidationError):
            await memory.search_memories(**wrong)


async def test_with_an_embedder_meaning_finds_what_words_do_not(start):
    embedder = AnimalEmbedder()
    memory = await start(embedder)
    await memory.store_memory("1", "a puppy", user_id="ann")
    await memory.store_memory("2", "a cat", user_id="ann")
    await memory.store_memory("3", "my dog", user_id="ann")

    assert keys(await memory.search_memories("dog", user_id="ann"))[:2] == ["3", "1"]
    await memory.search_memories("dog", user_id="ann")
    assert sorted(embedder.texts) == ["a cat", "a puppy", "dog", "dog", "my dog"]
    await memory.store_memory("1", "a cat now", user_id="ann")
    assert set(keys(await memory.search_memories("cat", user_id="ann"))[:2]) == {"1", "2"}


async def test_meaning_finds_what_shares_no_word_with_the_embedded_model(start):
    pytest.importorskip("wordllama")
    memory = await start(embedding={"provider": "wordllama"})
    await memory.store_memory("cat", "Our cat sleeps on the windowsill all afternoon", "long_term", user_id="ann")
    await memory.store_memory("tax", "The invoice for the dentist is due in March", "long_term", user_id="ann")
    assert keys(await memory.search_memories("feline pets resting", user_id="ann")) == ["cat"]
    assert keys(await memory.search_memories("payment deadlines of medical bills", user_id="ann")) == ["tax"]
    assert await memory.search_memories("router password", user_id="ann") == []
    await memory.close()


async def test_while_the_embedder_is_away_words_still_find(start, caplog):
    embedder = AnimalEmbedder()
    embedder.is_away = True
    memory = await start(embedder)
    await memory.store_memory("1", "a dog", user_id="ann")
    assert keys(await memory.search_memories("dog", user_id="ann")) == ["1"]
    assert "words only" in caplog.text


# -- consolidation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "moved"), [("importance", ["a"]), ("frequency", ["b"]), ("recency", ["b", "c"])])
async def test_consolidation_keeps_what_the_strategy_finds_worth_it(start, clock, strategy, moved):
    memory = await start()
    await memory.store_memory("a", "1", metadata={"importance": 0.8}, user_id="ann")
    await memory.store_memory("b", "2", user_id="ann")
    clock.advance(1900)
    await memory.store_memory("c", "3", user_id="ann")
    await memory.recall_memory("b", user_id="ann")
    await memory.recall_memory("b", user_id="ann")

    result = await memory.consolidate_memories("ann", strategy)

    assert sorted(result.moved) == moved
    assert result.kept == 3 - len(moved)
    clock.advance(100_000)
    again = await start()
    export = await again.export_user("ann")
    assert sorted(item["key"] for item in export["long_term"]) == moved
    assert export["short_term"] == []


async def test_consolidating_what_is_known_adds_to_it_and_repeats_nothing(start):
    memory = await start()
    await memory.store_memory("known", "Ann likes tea", "long_term", metadata={"importance": 0.3}, user_id="ann")
    await memory.store_memory("again", "Ann likes tea", metadata={"importance": 0.9}, user_id="ann")

    result = await memory.consolidate_memories("ann")

    assert (result.moved, result.merged, result.kept) == ((), ("again",), 0)
    (item,) = (await memory.export_user("ann"))["long_term"]
    assert (item["key"], item["importance"]) == ("known", 0.9)
    with pytest.raises(ValidationError, match="importance, frequency, recency"):
        await memory.consolidate_memories("ann", "luck")


# -- context -------------------------------------------------------------------------------------------------


CONTEXT = '{"summary": "About tea", "key_points": ["green", 7, "black"], "confidence": NaN, "entities": {}}'


async def test_the_window_holds_the_migrated_context_and_what_bears_on_the_session(start, tmp_path, clock):
    migrated_context(tmp_path, "ann", "s", CONTEXT)
    memory = await start()
    await memory.store_memory("old", "said first", user_id="ann", session_id="s")
    clock.advance(1)
    await memory.store_memory("new", "said last", user_id="ann", session_id="s")
    await memory.store_memory("other", "elsewhere", user_id="ann", session_id="t")
    await memory.store_memory("minor", "minor fact", "long_term", metadata={"importance": 0.1}, user_id="ann")
    await memory.store_memory("major", "major fact", "long_term", metadata={"importance": 0.9}, user_id="ann")

    window = await memory.get_context_window("s")

    assert window.user_id == "ann"
    assert window.text.split("\n") == [
        "About tea", "green", "black", "said last", "said first", "major fact", "minor fact",
    ]  # fmt: skip


@pytest.mark.parametrize("room", [0, 1, 3, 6, 9, 4000])
async def test_the_window_is_never_larger_than_asked(start, tmp_path, room):
    migrated_context(tmp_path, "ann", "s", json.dumps({"summary": "é" * 10, "key_points": ["p" * 20, "q"]}))
    memory = await start()
    await memory.store_memory("k", "x" * 30, user_id="ann", session_id="s")

    window = await memory.get_context_window("s", room)

    assert len(window.text.encode()) <= room * 4
    assert window.tokens <= room


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"summary": 3, "key_points": {}}'])
async def test_a_damaged_context_gives_an_empty_window(start, tmp_path, text):
    migrated_context(tmp_path, "ann", "s", text)
    assert (await (await start()).get_context_window("s")).text == ""


async def test_a_session_of_two_users_is_a_conflict_and_of_none_is_empty(start, tmp_path):
    migrated_context(tmp_path, "ann", "s", CONTEXT)
    migrated_context(tmp_path, "bob", "s", CONTEXT)
    memory = await start()
    with pytest.raises(Conflict, match="'ann', 'bob'"):
        await memory.get_context_window("s")
    assert (await memory.get_context_window("s", user_id="bob")).summary == "About tea"
    assert (await memory.get_context_window("unknown")).text == ""
    assert (await MemoryModule({}).get_context_window("s")).text == ""


async def test_a_saved_context_replaces_the_one_before_which_goes_to_history(start, tmp_path):
    place = migrated_context(tmp_path, "ann", "s", CONTEXT)
    memory = await start()

    await memory.save_context("ann", "s", {"summary": "Coffee now"})

    assert (await memory.get_context_window("s")).summary == "Coffee now"
    (before,) = (place / "history").iterdir()
    assert before.read_text() == CONTEXT
    with pytest.raises(ValidationError):
        await memory.save_context("ann", "s", {"x": float("nan")})
