"""The old manager's calls on both sides: the old one leads, the new one may be away, late or full, and catches up."""

import asyncio
import json
import multiprocessing
from types import SimpleNamespace

import pytest

from migration.dual_writer import DualWriter
from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import (
    FFMessageDTO,
    FFPanelInsightDTO,
    FFPanelMessageDTO,
    FFSituationalContextDTO,
    FFUserProfileDTO,
)
from modules.core.errors import ConfigurationError


def adapter_on(base):
    return LegacyStorageAdapter(SimpleNamespace(storage=SimpleNamespace(base_path=str(base))))


@pytest.fixture
def old(tmp_path):
    """Another store behind the old manager's calls: it gives its own ids, as the old manager does."""
    return adapter_on(tmp_path / "old")


@pytest.fixture
def new(tmp_path):
    return adapter_on(tmp_path / "new")


@pytest.fixture
def cut(new, monkeypatch):
    """Cuts the new side off, and joins it again."""
    real = new.store.files.base

    def switch(is_cut):
        if is_cut:
            (real.parent / "file").write_text("")
        monkeypatch.setattr(new.store.files, "base", real.parent / "file" if is_cut else real)
        monkeypatch.setattr(new.store.locks, "_directory", (real.parent / "file" if is_cut else real) / "locks")

    return switch


@pytest.fixture
def queue(tmp_path):
    return tmp_path / "queue.jsonl"


@pytest.fixture
async def writer(old, new, queue):
    made = DualWriter(old, new, queue)
    yield made
    await made.close()


def context(summary):
    return FFSituationalContextDTO(summary, [], {})


async def everything(store, session, panel):
    """What a store says of a user, in the old records; times of the store's own making left out."""
    found = await store.get_session("ann", session)
    profile = await store.get_user_profile("ann")
    return {
        "session": (found.title, found.metadata, found.message_count, found.created_at),
        "messages": [one.to_dict() for one in await store.get_all_messages("ann", session)],
        "profile": (profile["username"], profile["preferences"], profile["metadata"], profile["created_at"]),
        "documents": [one.to_dict() for one in await store.list_documents("ann", session)],
        "context": await store.get_context("ann", session),
        "persona": await store.get_persona("p", "ann"),
        "panel": [one.to_dict() for one in await store.get_panel_messages(panel)],
        "decisions": json.loads((store.base_path / f"multi_agent/conversations/{panel}/decisions.json").read_text()),
    }


async def write_everything(writer):
    await writer.create_user("ann", {"username": "A"})
    await writer.update_user_profile("ann", {"preferences": {"a": 1}})
    await writer.store_user_profile(FFUserProfileDTO("ann", "Ann", metadata={"b": 2}))
    session = await writer.create_session("ann", "T")
    for number in range(3):
        assert await writer.add_message("ann", session, FFMessageDTO("user", str(number)))
    await writer.update_session("ann", session, {"title": "U"})
    await writer.update_session_metadata("ann", session, {"k": 1})
    document = await writer.save_document("ann", session, "a.txt", b"bytes", {"d": 1})
    await writer.update_document_analysis("ann", session, document, {"pages": 1})
    await writer.update_context("ann", session, context("one"))
    await writer.update_context("ann", session, context("two"))
    await writer.save_persona("p", {"name": "P"}, "ann")
    panel = await writer.create_panel("x", ["p"], {"rounds": 1})
    await writer.add_panel_message(panel, FFPanelMessageDTO("p", "said"))
    await writer.save_panel_insight(panel, FFPanelInsightDTO(panel_id=panel, content="so"))
    return session, panel


async def test_every_write_is_on_both_sides(writer, old, new):
    session, panel = await write_everything(writer)
    assert await everything(new, session, panel) == await everything(old, session, panel)
    status = writer.status()
    assert (status.failures, status.waiting, status.mismatches, status.out_of_step) == (0, 0, 0, ())
    assert status.written >= 17
    assert await writer.delete_session("ann", session)
    assert await new.get_session("ann", session) is None


async def test_what_the_new_side_misses_is_replayed_in_order_also_after_a_restart(writer, old, new, queue, cut, caplog):
    cut(True)
    session, panel = await write_everything(writer)
    status = writer.status()
    assert (status.waiting >= 17, status.failures > 0, status.waiting_bytes > 0) == (True, True, True)
    assert not new.base_path.exists()
    assert (await writer.replay()).written == 0
    await writer.close()

    cut(False)
    again = DualWriter(old, new, queue)
    assert [write.values for write in again.pending] == [write.values for write in writer.pending]
    replayed = await again.replay()
    assert (replayed.remaining, replayed.failures) == (0, {})
    assert await everything(new, session, panel) == await everything(old, session, panel)
    assert again.status().oldest_s == 0
    await again.close()


async def test_a_write_that_arrived_unheard_is_not_doubled(writer, old, new, queue):
    await writer.add_message("ann", "s", FFMessageDTO("user", "one"))
    lines = queue.read_bytes().splitlines(keepends=True)
    queue.write_bytes(lines[0])  # the crash came before it was crossed off
    again = DualWriter(old, new, queue)
    assert len(again.pending) == 1
    assert (await again.replay()).written == 1
    assert [one.content for one in await new.get_all_messages("ann", "s")] == ["one"]


async def test_a_no_of_the_old_side_is_the_callers_and_an_error_too(writer, old, new):
    assert await writer.add_message("ann", "s", FFMessageDTO("user", "x" * 2_000_000)) is False
    assert await writer.save_document("ann", "s", "a.exe", b"x") == ""
    with pytest.raises(AttributeError):
        await writer.add_message("ann", "s", {"role": "user"})
    assert not new.base_path.exists()
    assert writer.status().waiting == 0


async def test_what_the_new_side_will_never_take_is_a_mismatch_and_holds_nobody_up(tmp_path, old, caplog):
    small = SimpleNamespace(base_path=str(tmp_path / "new"), max_message_size_bytes=400)
    new = LegacyStorageAdapter(SimpleNamespace(storage=small))
    writer = DualWriter(old, new)
    assert await writer.add_message("ann", "s", FFMessageDTO("user", "x" * 500)) is True
    assert await writer.add_message("ann", "s", FFMessageDTO("user", "y")) is True
    assert (writer.status().mismatches, writer.status().waiting) == (1, 0)
    assert [one.content for one in await new.get_all_messages("ann", "s")] == ["y"]
    assert "xxx" not in caplog.text


async def test_a_full_queue_puts_a_session_out_of_step_and_fails_nobody(old, new, queue, cut, caplog):
    writer = DualWriter(old, new, queue, most_notes=3)
    cut(True)
    for number in range(5):
        assert await writer.add_message("ann", "s", FFMessageDTO("user", str(number))) is True
    assert writer.status().waiting == 3
    assert writer.status().out_of_step == ("ann\0s",)
    cut(False)
    assert (await writer.replay()).remaining == 0
    assert await writer.add_message("ann", "s", FFMessageDTO("user", "late")) is True
    told = [one.content for one in await new.get_all_messages("ann", "s")]
    assert told == ["0", "1", "2"]  # nothing out of order: the rest is for the synchronisation
    await writer.close()
    again = DualWriter(old, new, queue)
    assert again.status().out_of_step == ("ann\0s",)
    again.resynced()
    await again.add_message("ann", "s", FFMessageDTO("user", "in step"))
    assert [one.content for one in await new.get_all_messages("ann", "s")][-1] == "in step"
    await again.close()
    assert DualWriter(old, new, queue).status().out_of_step == ()


async def test_a_new_side_that_hangs_does_not_hold_the_caller(old, new, monkeypatch):
    writer = DualWriter(old, new, new_timeout_s=0.05)
    go = asyncio.Event()
    real = writer._side.do

    async def slow(write):
        await go.wait()
        return await real(write)

    monkeypatch.setattr(writer._side, "do", slow)
    for number in range(3):
        assert await asyncio.wait_for(writer.add_message("ann", "s", FFMessageDTO("user", str(number))), 5) is True
    assert (writer.status().late, writer.status().waiting) == (1, 3)
    assert "not done after" in (await writer.replay()).failures["ann\0s"]
    go.set()
    while (await writer.replay()).remaining:
        await asyncio.sleep(0.01)
    assert [one.content for one in await new.get_all_messages("ann", "s")] == ["0", "1", "2"]


async def test_it_keeps_up_by_itself(old, new, cut):
    writer = DualWriter(old, new)
    cut(True)
    await writer.add_message("ann", "s", FFMessageDTO("user", "x"))
    keeping = asyncio.create_task(writer.keep_up(every_s=0.01))
    cut(False)
    async with asyncio.timeout(10):
        while writer.status().waiting:
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert len(await new.get_all_messages("ann", "s")) == 1


async def test_concurrent_writers_have_one_order_on_both_sides(writer, old, new):
    await asyncio.gather(*(writer.add_message("ann", "s", FFMessageDTO("user", str(n))) for n in range(30)))
    order = [one.message_id for one in await old.get_all_messages("ann", "s")]
    assert [one.message_id for one in await new.get_all_messages("ann", "s")] == order
    assert len(order) == 30


async def test_reads_and_all_else_go_to_the_old_side(writer, old):
    await writer.add_message("ann", "s", FFMessageDTO("user", "x"))
    assert [one.content for one in await writer.get_messages("ann", "s")] == ["x"]
    assert writer.base_path == old.base_path
    with pytest.raises(AttributeError):
        _ = writer.no_such_call


async def test_write_message_needs_a_user_with_an_adapter(writer, old, new):
    assert await writer.write_message("s", "hi", user_id="ann") == (True, True)
    ids = [[one.message_id for one in await side.get_all_messages("ann", "s")] for side in (old, new)]
    assert ids[0] == ids[1]
    with pytest.raises(TypeError, match="user_id"):
        await writer.write_message("s", "hi")


def open_queue(path, answers):
    try:
        DualWriter(None, {}, path)
    except ConfigurationError as error:
        answers.put(str(error))
    else:
        answers.put("opened")


@pytest.mark.slow
def test_a_queue_is_one_processs(queue):
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    owner = DualWriter(None, {}, queue)
    process = spawn.Process(target=open_queue, args=(queue, answers))
    process.start()
    assert "file of its own" in answers.get(timeout=60)
    process.join(60)
    assert owner.pending == ()


# -- with the synchronisation of files ---


class V2Files:
    """As much of the old manager as is needed to write a v2 tree."""

    def __init__(self, base):
        self.base = base

    async def create_session(self, user_id, title=None, session_type="chat"):
        session = f"chat_session_20250801_10000{len(list(self.base.glob('users/*/*/')))}_000001"
        record = {"session_id": session, "user_id": user_id, "title": title, "created_at": "2025-08-01T10:00:00"}
        more = {"updated_at": "2025-08-01T10:00:00", "message_count": 0, "metadata": {}, "session_type": session_type}
        home = self.base / "users" / user_id / session
        home.mkdir(parents=True)
        (home / "session.json").write_text(json.dumps({**record, **more}))
        return session

    async def get_session(self, user_id, session_id):
        return SimpleNamespace(**json.loads((self.base / "users" / user_id / session_id / "session.json").read_text()))

    async def get_user_profile(self, user_id):
        return None

    async def add_message(self, user_id, session_id, message):
        with (self.base / "users" / user_id / session_id / "messages.jsonl").open("a") as file:
            file.write(json.dumps(message.to_dict()) + "\n")
        return True


async def test_the_synchronisation_knows_both_sides_messages_for_one(tmp_path, new):
    def sync():
        return Engine(RunSettings(str(tmp_path / "v2"), str(tmp_path / "new")), LocalBackend()).run()

    files = V2Files(tmp_path / "v2")
    before = await files.create_session("ann", "Before")
    await files.add_message("ann", before, FFMessageDTO("user", "before"))
    sync()
    writer = DualWriter(files, new)
    fresh = await writer.create_session("ann", "Fresh")
    for session in (before, fresh):
        for number in range(3):
            await writer.add_message("ann", session, FFMessageDTO("user", str(number)))
    await new.add_message("ann", fresh, FFMessageDTO("user", "of the platform alone"))
    for _ in range(2):
        sync()
        for session, more in ((before, ["before"]), (fresh, [])):
            told = [one.content for one in await new.get_all_messages("ann", session)]
            alone = ["of the platform alone"] if session == fresh else []
            assert told == [*more, "0", "1", "2", *alone]
    assert list(tmp_path.glob("new/**/conflicts.jsonl")) == []
    assert (await new.get_session("ann", fresh)).title == "Fresh"
