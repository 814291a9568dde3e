"""What is sent is stored, once, and read back page by page."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time

import pytest

from modules.core.errors import Conflict, NotFound, StorageError, ValidationError
from modules.core.storage import FlatFiles
from modules.core.types import Attachment
from tests.text_chat_platform import clock, contents, home, migrated, plain_metadata, start

__all__ = ["clock", "start"]  # fixtures


# -- messages ------------------------------------------------------------------------------------------------


async def test_a_message_is_one_line_on_disk_when_it_is_acknowledged(start, tmp_path):
    chat = await start()
    session = await chat.create_session("ann", "Trip", {"k": 1})
    message = await chat.send_message(
        session.id, "Hé\u2028llo", metadata={"a": [1]}, attachments=(Attachment("x", "image", "x.png", 3),), tokens=5
    )

    (line,) = (home(tmp_path, session) / "messages.jsonl").read_bytes().splitlines(keepends=True)
    assert line.endswith(b"\n")
    stored = json.loads(line)
    assert stored["id"] == message.id
    assert stored["content"] == "Hé\u2028llo"
    assert stored["timestamp"] == "2024-01-15T12:00:00+00:00"
    assert await chat.get_messages(session.id) == [message]
    assert message.id.startswith("msg_")
    assert len(message.id) == 36


async def test_what_was_sent_is_there_after_a_restart(start):
    chat = await start()
    session = await chat.create_session("ann")
    sent = [await chat.send_message(session.id, f"m{n}") for n in range(5)]

    again = await start()

    assert await again.get_messages(session.id) == sent
    assert (await again.get_session(session.id)).message_count == 5


async def test_concurrent_sends_are_all_stored_and_counted(start, tmp_path):
    chat = await start()
    session = await chat.create_session("ann")

    sent = await asyncio.gather(*(chat.send_message(session.id, f"m{n}") for n in range(60)))

    lines = (home(tmp_path, session) / "messages.jsonl").read_bytes().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(message.id for message in sent)
    assert (await chat.get_session(session.id)).message_count == 60


async def test_appending_never_changes_what_stood_in_the_log(start, tmp_path):
    lines = [b'{"message":  "odd" , "id": "m1"}', b'{"id":"m2","content":"x","score":NaN}']
    directory = migrated(tmp_path, "ann", "old", metadata=plain_metadata("ann", "old"), lines=lines)
    before = (directory / "messages.jsonl").read_bytes()
    chat = await start()

    await chat.send_message("old", "new")

    after = (directory / "messages.jsonl").read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 3


async def test_a_torn_line_is_set_aside_and_never_joined_to_the_next(start, tmp_path):
    chat = await start()
    session = await chat.create_session("ann")
    first = await chat.send_message(session.id, "first")
    log = home(tmp_path, session) / "messages.jsonl"
    torn = '{"id": "msg_x", "content": "hal\u00e9'.encode()
    with log.open("ab") as file:
        file.write(torn)

    again = await start()
    assert await again.get_messages(session.id) == [first]
    second = await again.send_message(session.id, "second")

    assert await again.get_messages(session.id) == [first, second]
    (row,) = map(json.loads, (home(tmp_path, session) / "quarantine.jsonl").read_bytes().splitlines())
    assert row["raw"].encode() == torn
    assert (row["line"], row["raw_encoding"], row["salvaged_id"]) == (2, "utf-8", None)
    assert log.read_bytes().count(b"\n") == 2
    assert (await again.get_session(session.id)).message_count == 2


async def test_setting_a_torn_line_aside_twice_leaves_one_row(start, tmp_path, monkeypatch):
    chat = await start()
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "first")
    log = home(tmp_path, session) / "messages.jsonl"
    with log.open("ab") as file:
        file.write(b'{"id": "\xff')
    again = await start()

    def crash(*_):
        raise StorageError("power cut")

    monkeypatch.setattr(os, "ftruncate", crash)
    with pytest.raises(StorageError):
        await again.send_message(session.id, "second")
    monkeypatch.undo()
    await again.send_message(session.id, "second")

    (row,) = map(json.loads, (home(tmp_path, session) / "quarantine.jsonl").read_bytes().splitlines())
    assert row["raw_encoding"] == "base64"
    assert contents(await again.get_messages(session.id)) == ["first", "second"]


async def test_a_whole_last_line_without_newline_is_a_message_and_stays(start, tmp_path):
    directory = migrated(tmp_path, "ann", "old", metadata=plain_metadata("ann", "old"))
    (directory / "messages.jsonl").write_bytes(b'{"id": "m1", "role": "user", "content": "one"}')
    chat = await start()

    await chat.send_message("old", "two")

    assert contents(await chat.get_messages("old")) == ["one", "two"]
    assert not (directory / "quarantine.jsonl").exists()


async def test_the_cost_of_a_message_does_not_depend_on_the_length_of_the_chat(start, tmp_path, monkeypatch):
    lines = [json.dumps({"id": f"m{n}", "role": "user", "content": "x" * 200}).encode() for n in range(5000)]
    migrated(tmp_path, "ann", "long", metadata=plain_metadata("ann", "long"), lines=lines)
    chat = await start()
    await chat.send_message("long", "the first one counts what is there")
    again = await start()
    read = 0
    pread, fdopen = os.pread, os.fdopen

    def counting_pread(*arguments):
        nonlocal read
        data = pread(*arguments)
        read += len(data)
        return data

    def counting_fdopen(fd, *arguments, **named):
        nonlocal read
        file = fdopen(fd, *arguments, **named)
        read += os.fstat(fd).st_size if file.name == fd and os.fstat(fd).st_size > 100_000 else 0
        return file

    monkeypatch.setattr(os, "pread", counting_pread)
    monkeypatch.setattr(os, "fdopen", counting_fdopen)
    for n in range(10):
        await again.send_message("long", f"n{n}")

    assert read < 10_000
    monkeypatch.undo()
    assert (await again.get_session("long")).message_count == 5011


async def test_a_send_whose_caller_goes_away_is_stored_all_the_same(start, monkeypatch):
    chat = await start()
    session = await chat.create_session("ann")
    began, go_on = threading.Event(), threading.Event()
    append = FlatFiles.append

    def slow(self, key, *arguments, **named):
        if key.endswith("messages.jsonl"):
            began.set()
            go_on.wait(10)
        return append(self, key, *arguments, **named)

    monkeypatch.setattr(FlatFiles, "append", slow)
    sending = asyncio.create_task(chat.send_message(session.id, "kept"))
    await asyncio.to_thread(began.wait, 10)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    go_on.set()
    await chat.send_message(session.id, "next")

    assert contents(await chat.get_messages(session.id)) == ["kept", "next"]


async def test_a_refused_write_stores_nothing_and_the_next_one_goes_on(start, monkeypatch):
    chat = await start()
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "one")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(StorageError):
        await chat.send_message(session.id, "lost")
    monkeypatch.undo()
    await chat.send_message(session.id, "two")

    assert contents(await chat.get_messages(session.id)) == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"content": ""}, "content"),
        ({"content": None}, "content"),
        ({"content": "x" * 11}, "content"),
        ({"content": "\ud800"}, "message"),
        ({"content": "x", "role": "robot"}, "role"),
        ({"content": "x", "metadata": {"n": float("nan")}}, "message"),
        ({"content": "x", "metadata": {"o": object()}}, "message"),
        ({"content": "x", "metadata": [1]}, "metadata"),
        ({"content": "x", "tokens": -1}, "tokens"),
        ({"content": "x", "idempotency_key": ""}, "idempotency_key"),
    ],
)
async def test_what_cannot_be_stored_is_refused_and_named(start, arguments, param):
    chat = await start(max_message_length=10)
    session = await chat.create_session("ann")
    with pytest.raises(ValidationError) as caught:
        await chat.send_message(session.id, **arguments)
    assert caught.value.param == param
    assert await chat.get_messages(session.id) == []


async def test_the_fsync_durability_shares_one_sync_among_many(start, monkeypatch):
    chat = await start(durability="fsync")
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "first")
    syncs = []
    sync = FlatFiles.sync

    def counted(self, key):
        syncs.append(key)
        time.sleep(0.05)  # a disk that takes its time
        sync(self, key)

    monkeypatch.setattr(FlatFiles, "sync", counted)
    await asyncio.gather(*(chat.send_message(session.id, f"m{n}") for n in range(40)))

    assert 1 <= len(syncs) <= 10
    assert (await chat.get_session(session.id)).message_count == 41


async def test_a_failing_sync_reaches_the_sender(start, monkeypatch):
    chat = await start(durability="fsync")
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "first")

    def broken(self, key):
        raise StorageError("cannot sync")

    monkeypatch.setattr(FlatFiles, "sync", broken)
    with pytest.raises(StorageError, match="sync"):
        await chat.send_message(session.id, "second")


# -- idempotency ---------------------------------------------------------------------------------------------


async def test_the_same_send_again_gives_the_first_message_also_after_a_restart(start):
    chat = await start()
    session = await chat.create_session("ann")
    first = await chat.send_message(session.id, "pay", idempotency_key="k")
    await chat.send_message(session.id, "other")
    assert await chat.send_message(session.id, "pay", idempotency_key="k") == first

    again = await start()
    assert await again.send_message(session.id, "pay", idempotency_key="k") == first
    assert contents(await again.get_messages(session.id)) == ["pay", "other"]


async def test_concurrent_sends_with_one_key_store_one_message(start):
    chat = await start()
    session = await chat.create_session("ann")
    sent = await asyncio.gather(*(chat.send_message(session.id, "pay", idempotency_key="k") for _ in range(20)))
    assert len({message.id for message in sent}) == 1
    assert len(await chat.get_messages(session.id)) == 1


async def test_a_key_used_for_another_message_is_a_conflict(start):
    chat = await start()
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "pay 1", idempotency_key="k")
    with pytest.raises(Conflict, match="'k'"):
        await chat.send_message(session.id, "pay 2", idempotency_key="k")


async def test_a_repeated_send_is_neither_charged_nor_announced(start):
    chat = await start(rate_limit={"messages_per_minute": 1})
    session = await chat.create_session("ann")
    heard = []

    @chat._context.bus.on("chat.message.received")
    async def hear(data):
        heard.append(data["message"]["content"])

    await chat.send_message(session.id, "once", idempotency_key="k")
    await chat.send_message(session.id, "once", idempotency_key="k")
    assert heard == ["once"]


# -- history -------------------------------------------------------------------------------------------------


@pytest.fixture
async def long_chat(start):
    chat = await start()
    session = await chat.create_session("ann")
    messages = [await chat.send_message(session.id, str(n)) for n in range(10)]

    async def page(**arguments):
        for cursor in ("after", "before"):
            if cursor in arguments:
                arguments[cursor] = messages[arguments[cursor]].id
        found = await chat.get_messages(session.id, **arguments)
        return [int(message.content) for message in found]

    return page


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"limit": 3}, [0, 1, 2]),
        ({"limit": 3, "offset": 8}, [8, 9]),
        ({"limit": 3, "offset": 10}, []),
        ({"limit": 3, "order": "desc"}, [9, 8, 7]),
        ({"limit": 3, "offset": 8, "order": "desc"}, [1, 0]),
        ({"limit": 3, "offset": 10, "order": "desc"}, []),
        ({"limit": 3, "after": 4}, [5, 6, 7]),
        ({"limit": 3, "after": 9}, []),
        ({"limit": 3, "before": 4}, [1, 2, 3]),
        ({"limit": 3, "before": 0}, []),
        ({"limit": 9, "after": 2, "before": 5}, [3, 4]),
        ({"limit": 1, "after": 2, "before": 5}, [3]),
        ({"limit": 3, "after": 4, "order": "desc"}, [3, 2, 1]),
        ({"limit": 3, "before": 4, "order": "desc"}, [7, 6, 5]),
        ({"limit": 9, "after": 5, "before": 2, "order": "desc"}, [4, 3]),
    ],
)
async def test_pages(long_chat, arguments, expected):
    assert await long_chat(**arguments) == expected


async def test_a_page_that_nobody_can_mean_is_refused(start):
    chat = await start()
    session = await chat.create_session("ann")
    message = await chat.send_message(session.id, "x")
    for wrong in (
        {"limit": 0},
        {"limit": 1001},
        {"offset": -1},
        {"order": "up"},
        {"offset": 1, "after": message.id},
    ):
        with pytest.raises(ValidationError):
            await chat.get_messages(session.id, **wrong)
    with pytest.raises(NotFound, match="msg_unknown"):
        await chat.get_messages(session.id, after="msg_unknown")


async def test_search_finds_whatever_the_case_newest_first_and_stops_at_the_limit(start, clock):
    chat = await start()
    old = await chat.create_session("ann")
    await chat.send_message(old.id, "STRASSE one")
    clock.advance(60)
    new = await chat.create_session("ann")
    await chat.send_message(new.id, "straße two")
    await chat.send_message(new.id, "nothing here")
    await chat.send_message(new.id, "straße three")
    other = await chat.create_session("bob")
    await chat.send_message(other.id, "strasse of bob")

    assert contents(await chat.search_messages("ann", "Straße")) == ["straße three", "straße two", "STRASSE one"]
    assert contents(await chat.search_messages("ann", "strasse", limit=2)) == ["straße three", "straße two"]
    assert contents(await chat.search_messages("ann", "strasse", session_id=old.id)) == ["STRASSE one"]
    assert await chat.search_messages("nobody", "x") == []
    with pytest.raises(ValidationError):
        await chat.search_messages("ann", "  ")
