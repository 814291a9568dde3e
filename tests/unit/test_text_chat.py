"""The module as its callers see it: nothing acknowledged is lost, nobody else's session is touched."""

import asyncio
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from modules.core.context import ModuleContext
from modules.core.errors import ConfigurationError, Conflict, NotFound, RateLimited, StorageError, ValidationError
from modules.core.storage import FlatFiles, FlatFileStorage
from modules.core.types import Attachment
from modules.text_chat import TextChatModule
from modules.text_chat.raw_object import RawObject

GOLDEN = (
    Path(os.environ.get("MODCHAT_V2_CORPORA", Path(__file__).resolve().parents[3] / "shared" / "corpora")) / "golden"
)
OPEN_RATES = {"messages_per_minute": None, "tokens_per_minute": None}


class ManualClock:
    def __init__(self):
        self.moment = datetime(2024, 1, 15, 12, tzinfo=UTC)

    def now(self):
        return self.moment

    def monotonic(self):
        return self.moment.timestamp()

    def advance(self, seconds):
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def start(tmp_path, clock):
    """Starts a module on the same base each time: a second start is a restart of the platform."""

    async def started(**settings):
        module = TextChatModule(clock=clock)
        settings = {"rate_limit": OPEN_RATES} | settings
        context = ModuleContext(storage=FlatFileStorage(tmp_path), settings={"text_chat": settings}, clock=clock)
        await module.initialize(context.named("text_chat"))
        return module

    return started


def home(tmp_path, session):
    return tmp_path / "text_chat" / "sessions" / session.user_id / session.id


def migrated(tmp_path, user, session, *, metadata, lines=()):
    """A session as a migration writes it; *metadata* is the text of metadata.json."""
    directory = tmp_path / "text_chat" / "sessions" / user / session
    directory.mkdir(parents=True)
    if lines:
        (directory / "messages.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (directory / "metadata.json").write_bytes(metadata)
    return directory


def plain_metadata(user, session, updated_at="2024-01-01T00:00:00", count=0):
    document = {
        "id": session,
        "user_id": user,
        "title": f"About {session}",
        "created_at": "2024-01-01T00:00:00",
        "updated_at": updated_at,
        "metadata": {},
        "session_type": "chat",
        "message_count": count,
        "active": True,
        "legacy": {"generation": "G6"},
    }
    return json.dumps(document).encode()


def contents(messages):
    return [message.content for message in messages]


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


# -- sessions ------------------------------------------------------------------------------------------------


async def test_sessions_are_listed_newest_first_by_their_last_activity(start, clock):
    chat = await start()
    created = []
    for _ in range(4):
        created.append(await chat.create_session("ann"))
        clock.advance(10)
    await chat.send_message(created[1].id, "up")

    ids = [created[n].id for n in (1, 3, 2, 0)]
    assert [session.id for session in await chat.list_sessions("ann")] == ids
    assert [session.id for session in await chat.list_sessions("ann", 2, 1)] == ids[1:3]
    assert [session.id for session in await chat.list_sessions("ann", 2, after=ids[1])] == ids[2:]
    assert await chat.list_sessions("nobody") == []
    with pytest.raises(NotFound):
        await chat.list_sessions("ann", after="unknown")

    again = await start()
    listed = await again.list_sessions("ann")
    assert [session.id for session in listed] == ids
    assert listed[0].message_count == 1


async def test_a_list_is_right_after_a_crash_that_kept_state_from_being_written(start, clock, tmp_path):
    chat = await start()
    session = await chat.create_session("ann")
    for n in range(5):
        clock.advance(1)
        await chat.send_message(session.id, str(n))

    (listed,) = await (await start()).list_sessions("ann")

    assert listed.message_count == 5
    assert listed.updated_at == "2024-01-15T12:00:05+00:00"


async def test_a_session_that_another_process_made_is_listed(start, tmp_path):
    chat = await start()
    await chat.create_session("ann")
    await chat.list_sessions("ann")
    migrated(tmp_path, "ann", "late", metadata=plain_metadata("ann", "late"))
    (tmp_path / "text_chat/sessions/ann/unfinished").mkdir()

    assert {session.id for session in await chat.list_sessions("ann")} > {"late"}
    assert len(await chat.list_sessions("ann")) == 2


async def test_reading_writes_nothing(start, tmp_path):
    lines = [b'{"id": "m1", "content": "x"}', b'{"torn']
    migrated(tmp_path, "ann", "old", metadata=plain_metadata("ann", "old"), lines=lines)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    chat = await start()

    await chat.list_sessions("ann")
    await chat.get_messages("old", order="desc")
    await chat.search_messages("ann", "x")
    await chat.get_session("old")
    await chat.close()

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


LEGACY = (
    b'{"generation": "G3", "record":\n {"b" : 1.50, "a": [NaN, -Infinity, 1e999, "\\ud800\\u00e9"],'
    b'  "n": 12345678901234567890123}}'
)


@pytest.mark.parametrize(
    "legacy", [LEGACY, b'{"generation":"G6","record":{"z":1.0,"a":2}}', b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
async def test_renaming_keeps_what_a_migration_brought_byte_for_byte(start, tmp_path, legacy):
    document = b'{\n "id": "old", "user_id": "ann", "title": "Before", "custom": [1.0,  2], "legacy": ' + legacy + b"}"
    directory = migrated(tmp_path, "ann", "old", metadata=document)
    chat = await start()

    renamed = await chat.rename_session("old", "Äfter")

    stored = (directory / "metadata.json").read_bytes()
    assert b'"legacy": ' + legacy in stored
    assert b'"custom": [1.0,  2]' in stored
    assert RawObject.parse(stored).get("title") == "Äfter" == renamed.title
    again = await start()
    assert (await again.get_session("old")).title == "Äfter"
    assert await again.list_sessions("ann") == [await again.get_session("old")]


async def test_a_damaged_metadata_file_hides_neither_messages_nor_other_sessions(start, tmp_path):
    directory = migrated(tmp_path, "ann", "bad", metadata=b'{"id": "bad", ', lines=[b'{"id": "m", "content": "kept"}'])
    migrated(tmp_path, "ann", "good", metadata=plain_metadata("ann", "good"))
    chat = await start()

    assert {session.id for session in await chat.list_sessions("ann")} == {"bad", "good"}
    assert contents(await chat.get_messages("bad")) == ["kept"]
    with pytest.raises(StorageError, match="damaged"):
        await chat.rename_session("bad", "new")
    assert (directory / "metadata.json").read_bytes() == b'{"id": "bad", '


async def test_ids_of_any_spelling_stay_inside_their_own_directory(start, tmp_path):
    chat = await start()
    for user in ("../../etc", "日本語", "中文", "a/b", ".hidden", "x" * 300):
        session = await chat.create_session(user, "T")
        await chat.send_message(session.id, user, user_id=user)
        (listed,) = await chat.list_sessions(user)
        assert listed.user_id == user
        assert (await chat.get_session(session.id)).user_id == user
    again = await start()
    assert (await again.get_session(session.id)).user_id == "x" * 300
    assert all(path.is_relative_to(tmp_path / "text_chat") for path in tmp_path.rglob("*") if path.is_file())


async def test_one_id_of_two_users_is_a_conflict_that_names_both(start, tmp_path):
    for user in ("ann", "bob"):
        migrated(tmp_path, user, "same", metadata=plain_metadata(user, "same"))
    chat = await start()

    with pytest.raises(Conflict, match="'ann', 'bob'") as caught:
        await chat.send_message("same", "whose?")
    assert caught.value.candidates == ("ann", "bob")
    await chat.send_message("same", "bob's", user_id="bob")
    assert contents(await chat.get_messages("same", user_id="bob")) == ["bob's"]
    assert await chat.get_messages("same", user_id="ann") == []


async def test_what_does_not_exist_is_not_found_and_not_made(start, tmp_path):
    chat = await start()
    for call in (
        chat.get_session("no"),
        chat.get_messages("no"),
        chat.send_message("no", "x"),
        chat.get_session("no", "ann"),
        chat.send_message("no", "x", user_id="ann"),
        chat.rename_session("no", "x", "ann"),
        chat.delete_session("no", "ann"),
        chat.fork_session("no", "ann"),
    ):
        with pytest.raises(NotFound):
            await call
    assert not (tmp_path / "text_chat").exists()


async def test_a_refused_session_leaves_no_directory(start, tmp_path):
    chat = await start()
    for wrong in ({"metadata": {"n": float("inf")}}, {"title": ""}, {"title": "x" * 501}, {"session_type": ""}):
        with pytest.raises(ValidationError):
            await chat.create_session("ann", **wrong)
    for user in ("", None, "\ud800"):
        with pytest.raises(ValidationError):
            await chat.create_session(user)
    assert not (tmp_path / "text_chat").exists()


async def test_deleting_removes_every_byte_of_the_session(start, tmp_path):
    chat = await start()
    session = await chat.create_session("ann", "secret title")
    kept = await chat.create_session("ann", "kept")
    await chat.send_message(session.id, "secret message")

    await chat.delete_session(session.id)

    assert [one.id for one in await chat.list_sessions("ann")] == [kept.id]
    for call in (chat.get_messages(session.id), chat.send_message(session.id, "x"), chat.get_session(session.id)):
        with pytest.raises(NotFound):
            await call
    assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_a_send_that_waits_while_the_session_is_deleted_is_not_found(start):
    chat = await start()
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "in use")
    deleting, sending = await asyncio.gather(
        chat.delete_session(session.id), chat.send_message(session.id, "late"), return_exceptions=True
    )
    assert deleting is None
    assert isinstance(sending, NotFound)
    with pytest.raises(NotFound):
        await chat.get_messages(session.id)


async def test_a_fork_begins_with_the_same_messages_and_goes_its_own_way(start):
    chat = await start()
    origin = await chat.create_session("ann", "Plan", {"k": 1})
    messages = [await chat.send_message(origin.id, str(n)) for n in range(4)]

    fork = await chat.fork_session(origin.id, at_message_id=messages[1].id)
    whole = await chat.fork_session(origin.id, title="All")
    await chat.send_message(fork.id, "other")

    assert contents(await chat.get_messages(fork.id)) == ["0", "1", "other"]
    assert contents(await chat.get_messages(whole.id)) == ["0", "1", "2", "3"]
    assert contents(await chat.get_messages(origin.id)) == ["0", "1", "2", "3"]
    assert fork.metadata == {"k": 1, "forked_from": {"session_id": origin.id, "message_id": messages[1].id}}
    assert (fork.title, whole.title) == ("Plan", "All")
    assert (await chat.get_session(fork.id)).message_count == 3
    with pytest.raises(NotFound):
        await chat.fork_session(origin.id, at_message_id="unknown")


async def test_an_ended_session_takes_no_more_messages_but_can_be_read_and_forked(start):
    chat = await start()
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "x")
    ended = await chat.end_session(session.id)

    assert not ended.active
    with pytest.raises(Conflict, match="ended"):
        await chat.send_message(session.id, "y")
    again = await start()
    with pytest.raises(Conflict, match="ended"):
        await again.send_message(session.id, "y")
    assert contents(await again.get_messages(session.id)) == ["x"]
    fork = await again.fork_session(session.id)
    await again.send_message(fork.id, "y")


# -- limits --------------------------------------------------------------------------------------------------


async def test_a_full_session_and_a_user_with_enough_sessions_are_conflicts(start, tmp_path):
    migrated(tmp_path, "ann", "old", metadata=plain_metadata("ann", "old"))
    chat = await start(max_messages_per_session=2, session={"max_sessions_per_user": 2})
    first, _ = await chat.create_session("ann"), await chat.create_session("ann")
    with pytest.raises(Conflict, match="at most 2"):
        await chat.create_session("ann")
    await chat.create_session("bob")
    await chat.send_message(first.id, "1")
    await chat.send_message(first.id, "2")
    with pytest.raises(Conflict, match="full"):
        await chat.send_message(first.id, "3")


async def test_users_messages_a_minute_are_limited_by_user_and_the_window_slides(start, clock):
    chat = await start(rate_limit={"messages_per_minute": 2, "tokens_per_minute": None})
    session, others = await chat.create_session("ann"), await chat.create_session("bob")
    await chat.send_message(session.id, "1")
    clock.advance(40)
    await chat.send_message(session.id, "2")
    with pytest.raises(RateLimited) as caught:
        await chat.send_message(session.id, "3")
    assert caught.value.retry_after_s == pytest.approx(20)
    await chat.send_message(others.id, "1")
    await chat.send_message(session.id, "an answer is stored", "assistant")
    clock.advance(20)
    await chat.send_message(session.id, "3")
    assert contents(await chat.get_messages(session.id)) == ["1", "2", "an answer is stored", "3"]


async def test_tokens_a_minute_count_answers_too(start, clock):
    chat = await start(rate_limit={"messages_per_minute": None, "tokens_per_minute": 10})
    session = await chat.create_session("ann")
    await chat.send_message(session.id, "x", tokens=4)
    await chat.send_message(session.id, "long answer", "assistant", tokens=6)
    with pytest.raises(RateLimited, match="10 tokens"):
        await chat.send_message(session.id, "x", tokens=1)
    clock.advance(60)
    await chat.send_message(session.id, "x", tokens=50)


@pytest.mark.parametrize(
    "settings",
    [
        {"durability": "maybe"},
        {"max_message_length": 0},
        {"rate_limit": {"messages_per_minute": "many"}},
        {"session": {"max_sessions_per_user": None}},
    ],
)
async def test_a_wrong_setting_is_named(start, settings):
    with pytest.raises(ConfigurationError, match=r"text_chat\."):
        await start(**settings)


# -- state, events, health -----------------------------------------------------------------------------------


async def test_state_is_written_at_first_use_and_at_the_close(start, tmp_path, clock):
    chat = await start()
    session = await chat.create_session("ann")
    state = home(tmp_path, session) / "state.json"
    assert not state.exists()
    await chat.send_message(session.id, "12345678")
    assert json.loads(state.read_bytes())["message_count"] == 1
    clock.advance(5)
    last = await chat.send_message(session.id, "abcd", "assistant")
    await chat.close()

    stored = json.loads(state.read_bytes())
    assert stored["last_message_id"] == last.id
    assert (stored["turn_count"], stored["total_tokens"], stored["message_count"]) == (1, 3, 2)
    assert stored["active_since"] == "2024-01-15T12:00:00+00:00"
    assert stored["last_activity"] == "2024-01-15T12:00:05+00:00"


@pytest.mark.parametrize(
    "damage",
    [b"", b"{}", b"[1", b'{"message_count": "many"}', b'{"log_inode": 1, "log_bytes": 5, "message_count": 99}'],
)
async def test_a_damaged_state_is_counted_anew(start, tmp_path, damage):
    chat = await start()
    session = await chat.create_session("ann")
    for n in range(3):
        await chat.send_message(session.id, str(n))
    (home(tmp_path, session) / "state.json").write_bytes(damage)

    again = await start()
    await again.send_message(session.id, "3")

    assert (await again.get_session(session.id)).message_count == 4


async def test_activity_begins_anew_after_the_idle_time_out(start, tmp_path, clock):
    chat = await start(session={"idle_timeout_seconds": 60})
    session = await chat.create_session("ann")
    ended = []

    @chat._context.bus.on("chat.session.ended")
    async def hear(data):
        ended.append((data["session_id"], data["reason"]))

    await chat.send_message(session.id, "1")
    clock.advance(30)
    assert await chat.end_idle() == []
    clock.advance(61)
    assert await chat.end_idle() == [("ann", session.id)]
    await chat.send_message(session.id, "2")
    await chat.close()

    assert ended == [(session.id, "idle")]
    state = json.loads((home(tmp_path, session) / "state.json").read_bytes())
    assert state["active_since"] == "2024-01-15T12:01:31+00:00"


async def test_events_do_what_calls_do_and_errors_are_answered(start):
    chat = await start()
    bus, heard = chat._context.bus, []

    @bus.on("*", envelope=True)
    async def hear(envelope):
        heard.append((envelope.event, envelope.source_module, dict(envelope.data)))

    await bus.emit("chat.session.create", {"user_id": "ann", "title": "T"})
    (session,) = await chat.list_sessions("ann")
    await bus.emit("chat.message.send", {"session_id": session.id, "content": "hi"})
    await bus.emit("chat.message.send", {"session_id": session.id})
    await bus.emit("chat.message.send", {"session_id": session.id, "content": ""})
    await bus.emit("chat.session.end", {"session_id": session.id})

    said = [(event, data) for event, source, data in heard if source == "text_chat"]
    assert [event for event, _ in said] == [
        "chat.session.created",
        "chat.message.received",
        "chat.error",
        "chat.error",
        "chat.session.ended",
    ]
    assert said[0][1]["session"]["title"] == "T"
    assert said[1][1]["message"]["content"] == "hi"
    assert "content" in said[2][1]["message"]
    assert said[3][1]["code"] == "invalid_request"
    assert bus.failures == {}

    await chat.close()
    assert (await bus.emit("chat.session.create", {"user_id": "ann"})).handled == 1


async def test_health_is_whether_a_message_could_be_stored(start, tmp_path):
    chat = await start()
    assert await chat.health_check()
    tmp_path.rename(tmp_path.with_name("moved"))
    assert not await chat.health_check()
    tmp_path.with_name("moved").rename(tmp_path)


async def test_it_needs_flat_files():
    class Other:
        pass

    with pytest.raises(ConfigurationError, match="flat files"):
        await TextChatModule().initialize(ModuleContext(storage=Other()))


async def test_many_sessions_in_use_are_let_go_and_come_back(start, clock):
    chat = await start(session={"max_sessions_per_user": 100})
    chat._held._at_most = 5
    sessions = [await chat.create_session("ann") for _ in range(20)]
    for n in range(3):
        await asyncio.gather(*(chat.send_message(session.id, str(n)) for session in sessions))
    for session in sessions:
        assert contents(await chat.get_messages(session.id)) == ["0", "1", "2"]
        assert (await chat.get_session(session.id)).message_count == 3
    assert len(chat._held._held) <= 6


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the sample corpora are not here")
async def test_real_v2_lines_are_read_as_they_were_written(start, tmp_path):
    found = 0
    for log in GOLDEN.glob("**/messages.jsonl"):
        lines = [line for line in log.read_bytes().split(b"\n") if line.strip()]
        name = f"s{found}"
        migrated(tmp_path, "ann", name, metadata=plain_metadata("ann", name), lines=lines)
        chat = await start()
        messages = await chat.get_messages(name, user_id="ann", limit=1000)
        assert contents(messages) == [json.loads(line)["content"] for line in lines]
        assert [message.timestamp for message in messages] == [json.loads(line)["timestamp"] for line in lines]
        found += 1
    assert found
