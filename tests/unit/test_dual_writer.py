"""The old side leads; the new side may fail in any way and still gets every message, once and in order."""

import asyncio

import pytest

from migration.dual_writer import DualWriter
from modules.core.errors import StorageError, Unavailable
from modules.core.loader import ModuleLoader


class OldStorage:
    def __init__(self):
        self.messages = []
        self.fails = False

    async def add_message(self, *, session_id, message):
        if self.fails:
            raise OSError("old system is down")
        self.messages.append((session_id, message["content"]))
        return f"old {len(self.messages)}"


class FlakyChat:
    """The real module behind a line that can be cut, before the message arrives or before its answer does."""

    def __init__(self, chat):
        self.chat = chat
        self.cut = None

    async def send_message(self, **arguments):
        if self.cut == "before":
            raise Unavailable("cut")
        message = await self.chat.send_message(**arguments)
        if self.cut == "after":
            raise TimeoutError("no answer")
        return message


@pytest.fixture
async def chat(tmp_path):
    config = {"modules": {"text_chat": {"enabled": True}}, "storage": {"base_path": str(tmp_path / "new")}}
    loader = ModuleLoader.from_mapping(config)
    yield (await loader.load_module("text_chat"))
    await loader.close()


@pytest.fixture
async def session(chat):
    return await chat.create_session("ann", "T")


@pytest.fixture
def flaky(chat):
    return FlakyChat(chat)


@pytest.fixture
def old():
    return OldStorage()


@pytest.fixture
def queue(tmp_path):
    return tmp_path / "queue.jsonl"


async def contents(chat, session):
    return [message.content for message in await chat.get_messages(session.id)]


async def test_the_guides_form_writes_to_both(chat, session, old):
    writer = DualWriter(old, {"text_chat": chat})

    old_result, new_result = await writer.write_message(session.id, "hi")

    assert old_result == "old 1"
    assert new_result.content == "hi"
    assert old.messages == [(session.id, "hi")]
    assert await contents(chat, session) == ["hi"]
    assert (writer.pending, writer.failures) == ((), 0)


async def test_when_the_old_side_fails_nothing_is_written_to_the_new_one(chat, session, old):
    old.fails = True
    writer = DualWriter(old, {"text_chat": chat})
    with pytest.raises(OSError, match="old system"):
        await writer.write_message(session.id, "hi")
    assert await contents(chat, session) == []
    assert writer.pending == ()


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("on_disk", [True, False])
async def test_a_failing_new_side_is_caught_up_by_replay_once_and_in_order(
    flaky, chat, session, old, queue, cut, on_disk, caplog
):
    writer = DualWriter(old, {"text_chat": flaky}, queue if on_disk else None)
    await writer.write_message(session.id, "1")
    flaky.cut = cut
    assert await writer.write_message(session.id, "2") == ("old 2", None)
    flaky.cut = None
    assert await writer.write_message(session.id, "3") == ("old 3", None)  # waits behind 2

    assert [write.content for write in writer.pending] == ["2", "3"]
    assert writer.failures == 1
    assert "did not take" in caplog.text

    replayed = await writer.replay()

    assert (replayed.written, replayed.remaining, replayed.failures) == (2, 0, {})
    assert await contents(chat, session) == ["1", "2", "3"]
    assert writer.pending == ()
    assert (await writer.write_message(session.id, "4"))[1].content == "4"


async def test_the_queue_survives_the_process_and_messages_are_not_doubled(flaky, chat, session, old, queue):
    writer = DualWriter(old, {"text_chat": flaky}, queue)
    flaky.cut = "after"
    await writer.write_message(session.id, "1")
    await writer.write_message(session.id, "2", role="assistant", user_id="ann")

    again = DualWriter(old, {"text_chat": chat}, queue)
    assert again.pending == writer.pending
    assert (await again.replay()).written == 2
    assert await contents(chat, session) == ["1", "2"]
    assert DualWriter(old, {"text_chat": chat}, queue).pending == ()


async def test_one_session_that_fails_does_not_hold_up_the_others(flaky, chat, session, old):
    writer = DualWriter(old, {"text_chat": flaky})
    flaky.cut = "before"
    await writer.write_message("unknown", "a")
    await writer.write_message("unknown", "b")
    await writer.write_message(session.id, "1")
    flaky.cut = None

    replayed = await writer.replay()

    assert (replayed.written, replayed.remaining) == (1, 2)
    assert "NotFound" in replayed.failures["unknown"]
    assert await contents(chat, session) == ["1"]
    assert [write.content for write in writer.pending] == ["a", "b"]


async def test_a_message_whose_caller_goes_away_is_kept(session, old, queue):
    began = asyncio.Event()

    class Slow:
        async def send_message(self, **arguments):
            began.set()
            await asyncio.sleep(60)

    writer = DualWriter(old, {"text_chat": Slow()}, queue)
    writing = asyncio.create_task(writer.write_message(session.id, "kept"))
    await began.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert [write.content for write in DualWriter(old, {}, queue).pending] == ["kept"]
    assert [write.content for write in writer.pending] == ["kept"]


async def test_concurrent_writes_have_one_order_on_both_sides(chat, session, old):
    writer = DualWriter(old, {"text_chat": chat})
    await asyncio.gather(*(writer.write_message(session.id, str(n)) for n in range(30)))
    assert await contents(chat, session) == [content for _, content in old.messages]
    assert writer._locks == {}


async def test_a_note_cut_off_by_a_crash_is_dropped_and_a_damaged_one_stops(flaky, session, old, queue):
    writer = DualWriter(old, {"text_chat": flaky}, queue)
    flaky.cut = "before"
    await writer.write_message(session.id, "1")
    whole = queue.read_bytes()
    queue.write_bytes(whole + b'{"session_id": "s", "con')

    assert [write.content for write in DualWriter(old, {}, queue).pending] == ["1"]
    assert queue.read_bytes() == whole
    queue.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(StorageError, match="line 1"):
        DualWriter(old, {}, queue)


async def test_the_queue_file_does_not_grow_for_ever(chat, session, old, queue, monkeypatch):
    monkeypatch.setattr("migration.dual_writer_queue._LINES_BEFORE_A_NEW_FILE", 10)
    writer = DualWriter(old, {"text_chat": chat}, queue)
    for n in range(20):
        await writer.write_message(session.id, str(n))
    assert not queue.exists() or queue.read_bytes().count(b"\n") <= 12
