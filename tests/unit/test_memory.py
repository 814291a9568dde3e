"""Memory as its callers see it: what is stored is recalled, for as long as it should be, by whom it belongs to."""

from __future__ import annotations

import asyncio

import pytest

from modules.core.errors import ConfigurationError, StorageError, ValidationError
from modules.core.storage import FlatFiles
from modules.memory import MemoryModule
from tests.memory_platform import clock, migrated_context, start

__all__ = ["clock", "start"]  # fixtures

BANK = "memory/long_term/ann/memory_bank.jsonl"
JOURNAL = "memory/short_term/ann/.items.jsonl"


# -- the guide's form ----------------------------------------------------------------------------------------


async def test_the_guides_form_works_without_anything_else(clock):
    memory = MemoryModule({"short_term": {"ttl_seconds": 60}}, clock=clock)

    await memory.store("name", {"first": "Ann"})

    assert memory.ttl == 60
    assert await memory.recall("name", "short_term") == {"first": "Ann"}
    assert await memory.recall("other") is None
    clock.advance(60)
    assert await memory.recall("name") is None


async def test_long_term_memory_without_a_place_says_what_is_needed(tmp_path):
    memory = MemoryModule({})
    for call in (memory.store("k", 1, "long_term"), memory.recall("k", "long_term"), memory.consolidate_memories("")):
        with pytest.raises(ConfigurationError, match="base path"):
            await call
    placed = MemoryModule({}, base_path=tmp_path)
    await placed.store("k", 1, "long_term")
    assert await MemoryModule({}, base_path=tmp_path).recall("k", "long_term") == 1


# -- items ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_type", ["short_term", "long_term"])
async def test_what_is_stored_survives_a_restart(start, memory_type):
    memory = await start()
    stored = await memory.store_memory("k", [1, {"é": None}], memory_type, metadata={"importance": 0.9}, user_id="ann")

    recalled = await (await start()).recall_memory("k", memory_type, user_id="ann")

    assert recalled.content == [1, {"é": None}]
    assert recalled.importance == 0.9
    assert recalled.created_at == stored.created_at
    assert recalled.access_count == 1


async def test_a_short_term_item_fades_also_across_a_restart_and_that_is_announced(start, clock):
    memory = await start()
    await memory.store_memory("short", "x", ttl=10, user_id="ann")
    await memory.store_memory("usual", "x", user_id="ann")
    clock.advance(10)
    again = await start()
    expired = []

    @again._context.bus.on("memory.expired")
    async def hear(data):
        expired.append(data["keys"])

    assert await again.recall_memory("short", user_id="ann") is None
    assert await again.recall_memory("usual", user_id="ann") is not None
    assert expired == [["short"]]
    clock.advance(3600)
    assert await again.search_memories("x", user_id="ann") == []


async def test_storing_again_replaces_and_renews(start, clock):
    memory = await start()
    await memory.store_memory("k", "old", ttl=10, user_id="ann")
    clock.advance(9)
    await memory.store_memory("k", "new", ttl=10, user_id="ann")
    clock.advance(9)
    assert (await memory.recall_memory("k", user_id="ann")).content == "new"
    assert await memory.search_memories("old", user_id="ann") == []


async def test_the_least_recently_used_short_term_item_goes_first(start):
    memory = await start(short_term={"max_items": 3})
    for key in "abc":
        await memory.store_memory(key, key, user_id="ann")
    await memory.recall_memory("a", user_id="ann")
    await memory.store_memory("d", "d", user_id="ann")

    for module in (memory, await start(short_term={"max_items": 3})):
        assert [key for key in "abcd" if await module.recall_memory(key, user_id="ann")] == ["a", "c", "d"]
    await memory.store_memory("x", "x", user_id="bob")
    assert await memory.recall_memory("a", user_id="ann")


async def test_the_least_important_long_term_item_goes_first_and_never_the_newest(start):
    memory = await start(long_term={"max_items_per_user": 3})
    for key, importance in (("a", 0.9), ("b", 0.2), ("c", 0.5), ("d", 0.1), ("e", 0.7)):
        await memory.store_memory(key, key, "long_term", metadata={"importance": importance}, user_id="ann")
        assert await memory.recall_memory(key, "long_term", user_id="ann")
    again = await start(long_term={"max_items_per_user": 3})
    kept = [key for key in "abcde" if await again.recall_memory(key, "long_term", user_id="ann")]
    assert kept == ["a", "c", "e"]


async def test_an_item_belongs_to_its_user_session_and_agent(start):
    memory = await start()
    await memory.store_memory("k", "user's", user_id="ann")
    await memory.store_memory("k", "session's", user_id="ann", session_id="s")
    await memory.store_memory("k", "agent's", user_id="ann", session_id="s", agent_id="g")

    async def recalled(**scope):
        item = await memory.recall_memory("k", **scope)
        return item and item.content

    assert await recalled(user_id="ann") == "user's"
    assert await recalled(user_id="ann", session_id="s") == "session's"
    assert await recalled(user_id="ann", session_id="s", agent_id="g") == "agent's"
    assert await recalled(user_id="ann", session_id="other", agent_id="g") == "user's"
    assert await recalled(user_id="bob") is None
    assert len(await memory.search_memories("s", user_id="ann")) == 3
    assert len(await memory.search_memories("k", user_id="ann", session_id="other")) == 1
    assert await memory.search_memories("k", user_id="bob") == []


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"key": ""}, "key"),
        ({"memory_type": "middle"}, "memory_type"),
        ({"ttl": 0}, "ttl"),
        ({"content": object()}, "content"),
        ({"content": float("nan")}, "content"),
        ({"content": "\ud800"}, "content"),
        ({"metadata": {"importance": 2}}, "importance"),
        ({"metadata": ["x"]}, "metadata"),
        ({"session_id": ""}, "session_id"),
        ({"user_id": None}, "user_id"),
    ],
)
async def test_what_cannot_be_remembered_is_refused_and_named(start, arguments, param):
    memory = await start()
    with pytest.raises(ValidationError) as caught:
        await memory.store_memory(**{"key": "k", "content": "x", "user_id": "ann"} | arguments)
    assert caught.value.param == param
    assert await memory.search_memories("k x", user_id="ann") == []


async def test_a_write_that_fails_is_not_remembered_either(start, monkeypatch):
    memory = await start()

    def full(*_, **__):
        raise StorageError("full", retryable=True)

    monkeypatch.setattr(FlatFiles, "append", full)
    with pytest.raises(StorageError):
        await memory.store_memory("k", "x", user_id="ann")
    monkeypatch.undo()
    assert await memory.recall_memory("k", user_id="ann") is None


async def test_concurrent_stores_are_all_kept(start):
    memory = await start()
    await asyncio.gather(*(memory.store_memory(f"k{n}", n, "long_term", user_id="ann") for n in range(50)))
    again = await start()
    export = await again.export_user("ann")
    assert sorted(item["content"] for item in export["long_term"]) == list(range(50))


# -- journals ------------------------------------------------------------------------------------------------


async def test_the_journal_stays_in_proportion_to_what_it_holds(start, tmp_path):
    memory = await start()
    for n in range(500):
        await memory.store_memory("k", n, "long_term", user_id="ann")
        await memory.store_memory("k", n, user_id="ann")
    assert (tmp_path / BANK).read_bytes().count(b"\n") < 100
    assert (tmp_path / JOURNAL).read_bytes().count(b"\n") < 100
    assert len(memory._users["ann"].bank("short_term")._expiries) < 100
    assert (await (await start()).recall_memory("k", "long_term", user_id="ann")).content == 499


async def test_a_torn_journal_loses_no_other_line_and_keeps_the_torn_one(start, tmp_path):
    memory = await start()
    await memory.store_memory("a", 1, "long_term", user_id="ann")
    with (tmp_path / BANK).open("ab") as file:
        file.write(b'{"key": "b", "cont')
    again = await start()
    await again.store_memory("c", 3, "long_term", user_id="ann")

    last = await start()
    assert await last.recall_memory("a", "long_term", user_id="ann")
    assert await last.recall_memory("c", "long_term", user_id="ann")
    assert (tmp_path / BANK).with_name("memory_bank.quarantine.jsonl").read_bytes() == b'{"key": "b", "cont\n'


async def test_how_often_items_were_used_survives_a_proper_end(start):
    memory = await start()
    await memory.store_memory("k", "x", "long_term", user_id="ann")
    for _ in range(3):
        await memory.recall_memory("k", "long_term", user_id="ann")
    await memory.close()
    assert (await (await start()).recall_memory("k", "long_term", user_id="ann")).access_count == 4


# -- users ---------------------------------------------------------------------------------------------------


async def test_an_erased_user_is_nowhere_in_the_data_and_others_stay(start, tmp_path):
    migrated_context(tmp_path, "ann", "s", '{"summary": "canary"}')
    memory = await start()
    for user in ("ann", "bob"):
        await memory.store_memory("k", "canary", user_id=user)
        await memory.store_memory("k", "canary", "long_term", user_id=user)
    export = await memory.export_user("ann")
    assert export["contexts"] == {"s/context.json": '{"summary": "canary"}'}
    assert len(export["short_term"]) == len(export["long_term"]) == 1

    erased = await memory.erase_user("ann")

    assert (erased.items, erased.contexts) == (2, 1)
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert len(holding) == 2
    assert all("bob" in str(path) for path in holding)
    assert await memory.search_memories("canary", user_id="ann") == []
    assert len(await memory.search_memories("canary", user_id="bob")) == 2


@pytest.mark.parametrize("memory_type", ["short_term", "long_term"])
async def test_a_deleted_item_is_nowhere_and_others_stay(start, tmp_path, memory_type):
    memory = await start()
    await memory.store_memory("k", "a telltale secret", memory_type, user_id="ann")
    await memory.store_memory("k", "of the session", memory_type, user_id="ann", session_id="s")
    assert await memory.delete_memory("k", memory_type, user_id="ann")
    assert not await memory.delete_memory("k", memory_type, user_id="ann")
    assert await memory.recall_memory("k", memory_type, user_id="ann") is None
    assert await memory.search_memories("telltale", user_id="ann") == []
    assert not any(b"telltale" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    again = await start()
    assert (await again.recall_memory("k", memory_type, user_id="ann", session_id="s")).content == "of the session"


async def test_more_users_than_are_held_in_memory_lose_nothing(start, monkeypatch):
    monkeypatch.setattr("modules.memory.memory._USERS_HELD", 3)
    memory = await start()
    for n in range(10):
        await memory.store_memory("k", n, user_id=f"u{n}")
    assert [(await memory.recall_memory("k", user_id=f"u{n}")).content for n in range(10)] == list(range(10))
    assert len(memory._users) <= 3


# -- the module ----------------------------------------------------------------------------------------------


async def test_events_do_what_calls_do(start):
    memory = await start()
    bus, heard = memory._context.bus, []

    @bus.on("*", envelope=True)
    async def hear(envelope):
        heard.append((envelope.event, dict(envelope.data)))

    await bus.emit("memory.store", {"key": "k", "content": "tea", "user_id": "ann"})
    await bus.emit("memory.recall", {"key": "k", "user_id": "ann"})
    await bus.emit("memory.search", {"query": "tea", "user_id": "ann"})
    await bus.emit("memory.consolidate", {"user_id": "ann", "strategy": "recency"})
    await bus.emit("session.context.save", {"user_id": "ann", "session_id": "s", "context": {"summary": "x"}})

    told = [
        (event, data) for event, data in heard if event in ("memory.stored", "memory.retrieved", "memory.consolidated")
    ]
    assert [event for event, _ in told] == ["memory.stored", *["memory.retrieved"] * 2, "memory.consolidated"]
    assert [item["content"] for item in told[1][1]["items"]] == ["tea"]
    assert told[3][1]["moved"] == ["k"]
    assert (await memory.get_context_window("s")).summary == "x"
    assert bus.failures == {}
    await bus.emit("memory.store", {"key": "k"})
    assert bus.failures == {"memory.store": 1}
    await memory.close()
    assert (await bus.emit("memory.recall", {"key": "k"})).handled == 1


@pytest.mark.parametrize(
    "config",
    [{"short_term": {"ttl_seconds": 0}}, {"short_term": {"max_items": "x"}}, {"long_term": {"consolidation": "luck"}}],
)
def test_a_wrong_setting_is_named(config):
    with pytest.raises(ConfigurationError, match=r"memory\.(short|long)_term\."):
        MemoryModule(config)


async def test_health_is_whether_something_could_be_remembered(start, tmp_path):
    assert await MemoryModule({}).health_check()
    memory = await start()
    assert await memory.health_check()
    gone = MemoryModule({}, base_path=tmp_path / "gone")
    assert not await gone.health_check()
