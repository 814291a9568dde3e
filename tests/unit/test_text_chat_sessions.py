"""Sessions: listed, renamed, forked, ended, deleted; nobody else's is touched."""

from __future__ import annotations

import asyncio

import pytest

from modules.core.errors import Conflict, NotFound, StorageError, ValidationError
from modules.text_chat.raw_object import RawObject
from tests.text_chat_platform import clock, contents, migrated, plain_metadata, start

__all__ = ["clock", "start"]  # fixtures


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
