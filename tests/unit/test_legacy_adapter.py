"""Old calls on the new store: in the guide's form, with records of the old application, beside a running platform, on
migrated data, and back into v2."""

import json
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest

from actors.local import LocalRuntime
from actors.system import Platform
from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import (
    OLD_MODULE,
    FFMessageDTO,
    FFPanelInsightDTO,
    FFPanelMessageDTO,
    FFSituationalContextDTO,
)
from migration.reverse import reverse
from migration.sample import write_sample
from migration.validate import MigrationValidator
from modules.core.errors import ConfigurationError, StorageError, Unavailable
from modules.core.loader import ModuleLoader

SETTINGS = {
    "modules": {"text_chat": {"enabled": True, "shards": 2, "rate_limit": {"messages_per_minute": None}}},
}


def adapter_on(base, **more):
    return LegacyStorageAdapter(SimpleNamespace(storage=SimpleNamespace(base_path=str(base))), **more)


@pytest.fixture
async def loader(tmp_path):
    config = {"modules": {"text_chat": {"enabled": True}}, "storage": {"base_path": str(tmp_path)}}
    made = ModuleLoader.from_mapping(config)
    await made.load_all()
    yield made
    await made.close()


# -- the guide's form ---


async def test_a_session_is_created_as_the_guide_has_it(loader, tmp_path):
    for adapter in (LegacyStorageAdapter(loader.context), LegacyStorageAdapter(module_context=loader.context)):
        created = await adapter.create_session("ann", "My chat")
        assert set(created) == {"session_id", "session_name", "created_at"}
        assert created["session_name"] == "My chat"
        named = await adapter.create_session(user_id="ann", session_name="Other", session_type="panel")
        assert (named["session_name"], adapter.base_path) == ("Other", tmp_path)
        session = await adapter.get_session("ann", created["session_id"])
        assert (session.title, session.created_at) == ("My chat", created["created_at"])
        assert await adapter.add_message("ann", created["session_id"], FFMessageDTO("user", "hi")) is True
        chat = await loader.context.get_module("text_chat")
        assert [one.content for one in await chat.get_messages(created["session_id"], user_id="ann")] == ["hi"]


class Nothing:
    async def get_module(self, name):
        return None


async def test_without_text_chat_or_storage_it_says_so():
    adapter = LegacyStorageAdapter(Nothing())
    with pytest.raises(Unavailable, match="text_chat"):
        await adapter.create_session("ann", "x")
    with pytest.raises(ConfigurationError, match="storage"):
        await adapter.get_messages("ann", "s")


def test_a_configuration_without_a_base_path_is_refused():
    for config in (SimpleNamespace(), SimpleNamespace(storage=SimpleNamespace(base_path=""))):
        with pytest.raises(ConfigurationError, match="base_path"):
            LegacyStorageAdapter(config)
    wrong = SimpleNamespace(storage=SimpleNamespace(base_path="x", max_message_size_bytes=0))
    with pytest.raises(ConfigurationError, match="max_message_bytes"):
        LegacyStorageAdapter(wrong)


def test_without_a_configuration_the_platforms_settings_say_the_base_path(monkeypatch, tmp_path):
    monkeypatch.setenv("CHAT_STORAGE__BASE_PATH", str(tmp_path))
    assert LegacyStorageAdapter().base_path == tmp_path


def test_flat_attributes_of_the_first_version_are_read(tmp_path):
    adapter = LegacyStorageAdapter(SimpleNamespace(storage_base_path=str(tmp_path), panel_max_personas=3))
    assert (adapter.base_path, adapter.settings.max_personas) == (tmp_path, 3)


# -- records of the old application ---


@dataclass
class OldMessage:
    role: str
    content: str
    message_id: str = "msg_old"
    timestamp: str = "2025-01-01T00:00:00"
    attachments: list = field(default_factory=list)
    metadata: dict = field(default_factory=dict)


async def test_records_of_the_old_applications_own_classes_go_in_and_come_out(tmp_path, monkeypatch):
    module = ModuleType(OLD_MODULE)
    module.FFMessageDTO = OldMessage
    monkeypatch.setitem(sys.modules, OLD_MODULE, module)
    adapter = adapter_on(tmp_path)
    assert await adapter.add_message("ann", "s", OldMessage("user", "hi")) is True
    (found,) = await adapter.get_messages("ann", "s")
    assert found == OldMessage("user", "hi")
    monkeypatch.delitem(sys.modules, OLD_MODULE)
    (own,) = await adapter_on(tmp_path).get_messages("ann", "s")
    assert own == FFMessageDTO("user", "hi", "msg_old", "2025-01-01T00:00:00")
    (named,) = await adapter_on(tmp_path, records=module).get_messages("ann", "s")
    assert isinstance(named, OldMessage)


# -- migrated data ---


def migrated(tmp_path):
    write_sample(tmp_path / "v2", users=3, sessions=2, messages=25)
    Engine(RunSettings(str(tmp_path / "v2"), str(tmp_path / "new")), LocalBackend()).run()
    return adapter_on(tmp_path / "new")


async def test_migrated_and_new_data_are_seen_alike(tmp_path):
    adapter = migrated(tmp_path)
    seen = {"sessions": 0, "messages": 0, "documents": 0, "contexts": 0}
    for path in sorted((tmp_path / "v2/users").glob("*/*/session.json")):
        record = json.loads(path.read_text())
        if "session_id" not in record or ".backup_" in path.parent.name:
            continue
        user, session = record["user_id"], path.parent.name
        found = await adapter.get_session(user, session)
        assert (found.title, found.created_at) == (record["title"], record["created_at"])
        messages = [json.loads(line) for line in _whole_lines(path.parent / "messages.jsonl") if line.startswith(b'{"')]
        stored = await adapter.get_all_messages(user, session)
        told = [(one.message_id, one.content) for one in stored]
        for message in messages:
            if "message_id" in message:
                assert (message["message_id"], message["content"]) in told
                seen["messages"] += 1
        for entry in await adapter.list_documents(user, session):
            file = path.parent / "documents" / entry.filename
            if file.exists():
                assert await adapter.get_document(user, session, entry.filename) == file.read_bytes()
                seen["documents"] += 1
        if (path.parent / "situational_context.json").exists():
            assert (await adapter.get_context(user, session)).summary
            seen["contexts"] += 1
        assert await adapter.add_message(user, session, FFMessageDTO("user", "new here"))
        after = await adapter.get_all_messages(user, session)
        assert [one.message_id for one in after[:-1]] == [one.message_id for one in stored]
        assert after[-1].content == "new here"
        seen["sessions"] += 1
    assert all(seen.values()), seen


def _whole_lines(path):
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    found = []
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            continue
        found.append(line)
    return found


async def test_migrated_personas_and_panels_are_seen(tmp_path):
    adapter = migrated(tmp_path)
    assert (await adapter.get_persona("dr. who"))["communication_style"]["tone"] == "playful"
    (panel,) = [path.name for path in (tmp_path / "new/multi_agent/conversations").iterdir()]
    before = await adapter.get_panel_messages(panel, 100)
    assert before
    await adapter.add_panel_message(panel, FFPanelMessageDTO("p", "new"))
    assert [one.content for one in await adapter.get_panel_messages(panel, 100)][-1] == "new"


async def test_what_the_old_calls_wrote_passes_validation_and_its_chats_go_back_into_v2(tmp_path):
    adapter = migrated(tmp_path)
    (panel,) = [path.name for path in (tmp_path / "new/multi_agent/conversations").iterdir()]
    session = await adapter.create_session("newcomer", "Fresh")
    message = FFMessageDTO("user", "carry me back", metadata={"k": 1})
    await adapter.add_message("newcomer", session, message)
    await adapter.add_message("newcomer", "never made", FFMessageDTO("user", "x"))
    await adapter.save_document("newcomer", session, "a.txt", b"bytes")
    await adapter.update_context("newcomer", session, FFSituationalContextDTO("about", [], {}))
    await adapter.save_persona("fresh", {"name": "F"})
    await adapter.add_panel_message(panel, FFPanelMessageDTO("p", "said"))
    await adapter.save_panel_insight(panel, FFPanelInsightDTO(panel_id=panel, content="so"))
    await adapter.create_panel("x", ["fresh"])

    _, errors, _ = MigrationValidator(tmp_path / "v2", tmp_path / "new").validate_all()
    assert errors == []
    report = reverse(tmp_path / "new", tmp_path / "back")
    assert [one.kind for one in report.findings] == []
    home = tmp_path / "back/users/newcomer"
    assert json.loads((home / "profile.json").read_text())["user_id"] == "newcomer"
    assert json.loads((home / session / "session.json").read_text())["title"] == "Fresh"
    (line,) = (home / session / "messages.jsonl").read_text().splitlines()
    stored = json.loads(line)
    assert (stored["message_id"], stored["metadata"]) == (message.message_id, {"k": 1})
    assert "about" in (home / session / "situational_context.json").read_text()
    assert "said" in (tmp_path / f"back/panel_sessions/{panel}/messages.jsonl").read_text()
    assert "new_documents" in [one.kind for one in report.losses]


# -- beside a running platform ---


@pytest.fixture
async def platform(tmp_path):
    started = await Platform.start(SETTINGS, base=tmp_path, runtime=LocalRuntime(copies=True))
    yield started
    await started.stop()


async def test_it_works_beside_a_running_platform(platform, tmp_path):
    adapter, chat = adapter_on(tmp_path), platform.ref("text_chat")
    session = await adapter.create_session("ann", "From the old side")
    for number in range(10):
        await adapter.add_message("ann", session, FFMessageDTO("user", f"old {number}"))
        await chat.ask("send_message", session, f"new {number}", user_id="ann")
    wanted = [f"{side} {number}" for number in range(10) for side in ("old", "new")]
    assert [one.content for one in await adapter.get_all_messages("ann", session)] == wanted
    assert [one.content for one in await chat.ask("get_messages", session, user_id="ann")] == wanted
    assert (await chat.ask("get_session", session, "ann")).message_count == 20
    assert (await adapter.get_session("ann", session)).message_count == 20
    theirs = await chat.ask("create_session", "ann", "From the new side")
    assert [one.title for one in await adapter.list_sessions("ann")] == ["From the new side", "From the old side"]
    await adapter.add_message("ann", "never made", FFMessageDTO("user", "kept"))
    assert {one.id for one in await chat.ask("list_sessions", "ann")} == {session, theirs.id, "never made"}
    assert await adapter.delete_session("ann", theirs.id)
    assert {one.id for one in await chat.ask("list_sessions", "ann")} == {session, "never made"}
    exported = await chat.ask("export_user", "ann")
    assert "old 3" in json.dumps(exported)
    await chat.ask("erase_user", "ann")
    left = [path for path in tmp_path.rglob("*") if path.is_file() and b"old 3" in path.read_bytes()]
    assert left == []


# -- when things go wrong ---


async def test_a_write_that_the_disk_refuses_is_false_and_a_read_that_fails_is_an_error(tmp_path, caplog):
    adapter = adapter_on(tmp_path)
    session = await adapter.create_session("ann")
    log = tmp_path / f"text_chat/sessions/ann/{session}/messages.jsonl"
    log.symlink_to(tmp_path / "elsewhere")
    assert await adapter.add_message("ann", session, FFMessageDTO("user", "x")) is False
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(StorageError):
        await adapter.get_messages("ann", session)
    assert "nothing was written" in caplog.text


async def test_a_line_that_a_crash_cut_off_is_not_joined_by_the_next(tmp_path):
    adapter = adapter_on(tmp_path)
    await adapter.add_message("ann", "s", FFMessageDTO("user", "one"))
    log = tmp_path / "text_chat/sessions/ann/s/messages.jsonl"
    log.write_bytes(log.read_bytes() + b'{"id": "torn", "role": "us')
    await adapter.add_message("ann", "s", FFMessageDTO("user", "two"))
    assert [one.content for one in await adapter.get_all_messages("ann", "s")] == ["one", "two"]
