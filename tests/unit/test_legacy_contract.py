"""Users, sessions, messages and searches by the old storage API: a case for each call, and one for each odd answer."""

import inspect
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from migration import legacy_records as records
from migration.legacy_adapter import LegacyStorageAdapter
from migration.legacy_records import FFMessageDTO, FFSearchQueryDTO, FFUserProfileDTO
from migration.legacy_sessions import login_name
from tests.legacy_cases import STILL, THE_REST, Cases, config_of, context, files_in, filled

CASES = Cases()
case = CASES.case


# -- construction and users ------------------------------------------------------------------------------------------


@case("constructor(config, backend, enable_prismmind)")
async def _(adapter, tmp_path):
    config, backend = config_of(tmp_path / "x"), object()
    made = LegacyStorageAdapter(config, backend, False)
    assert made.config is config
    assert made.backend is backend
    assert made.base_path == tmp_path / "x"
    assert not made._initialized
    assert not (tmp_path / "x").exists()
    assert list(inspect.signature(LegacyStorageAdapter).parameters)[:3] == ["config", "backend", "enable_prismmind"]
    assert inspect.signature(LegacyStorageAdapter).parameters["enable_prismmind"].default is True


@case("initialize")
async def _(adapter, tmp_path):
    assert await adapter.initialize() is True
    assert await adapter.initialize() is True
    assert adapter._initialized
    (tmp_path / "file").write_text("")
    assert await LegacyStorageAdapter(config_of(tmp_path / "file/below")).initialize() is False


@case("create_user")
async def _(adapter):
    assert await adapter.create_user("a@b.c", {"username": "Ann", "preferences": {"x": 1}, "odd": 2}) is True
    assert await adapter.create_user("a@b.c") is False
    assert await adapter.create_user("a_b.c") is True  # v2 took the two for one
    profile = await adapter.get_user_profile("a@b.c")
    assert (profile["username"], profile["preferences"], "odd" in profile) == ("Ann", {"x": 1}, False)
    with pytest.raises(ValueError, match="empty"):
        await adapter.create_user("")
    with pytest.raises(TypeError):
        await adapter.create_user(None)


@case("get_user_profile")
async def _(adapter):
    assert await adapter.get_user_profile("nobody") is None
    assert not adapter.base_path.exists()
    assert await adapter.create_user("nobody") is True  # reading made nobody
    keys = {"user_id", "username", "created_at", "updated_at", "preferences", "metadata"}
    assert set(await adapter.get_user_profile("nobody")) == keys
    (adapter.base_path / "text_chat/users/nobody/profile.json").write_text("{broken")
    assert await adapter.get_user_profile("nobody") is None


@case("update_user_profile")
async def _(adapter):
    assert await adapter.update_user_profile("ann", {"username": "A"}) is False
    await adapter.create_user("ann", {"preferences": {"a": 1, "b": 1}})
    before = await adapter.get_user_profile("ann")
    assert await adapter.update_user_profile("ann", {"username": "A", "preferences": {"b": 2}, "odd": 1}) is True
    after = await adapter.get_user_profile("ann")
    assert (after["username"], after["preferences"], "odd" in after) == ("A", {"a": 1, "b": 2}, False)
    assert after["updated_at"] > before["updated_at"]
    assert after["created_at"] == before["created_at"]


@case("store_user_profile")
async def _(adapter):
    assert (
        await adapter.store_user_profile(FFUserProfileDTO("ann", "Ann", created_at="1999", metadata={"a": 1})) is True
    )
    profile = await adapter.get_user_profile("ann")
    assert (profile["username"], profile["created_at"] == "1999") == ("Ann", False)
    assert await adapter.store_user_profile(SimpleNamespace(user_id="ann", metadata={"b": 2})) is True
    assert (await adapter.get_user_profile("ann"))["metadata"] == {"a": 1, "b": 2}


@case("user_exists")
async def _(adapter):
    assert await adapter.user_exists("ann") is False
    await adapter.add_message("ann", "s", FFMessageDTO("user", "hi"))
    assert await adapter.user_exists("ann") is True


@case("list_users")
async def _(adapter):
    assert await adapter.list_users() == []
    await adapter.create_user("zoë")
    await adapter.create_session("ann")
    await adapter.create_user("n" * 300)
    assert await adapter.list_users() == ["ann", "n" * 300, "zoë"]


# -- sessions ---------------------------------------------------------------------------------------------------------


@case("create_session")
async def _(adapter):
    session = await adapter.create_session("ann")
    datetime.strptime(session, "chat_session_%Y%m%d_%H%M%S_%f")  # noqa: DTZ007 - as v2's ids are
    assert (await adapter.get_session("ann", session)).title == "New Chat"
    assert (await adapter.get_user_profile("ann"))["username"] == ""
    names = {"panel": "Panel Session", "debate": "Debate Session", "problem_solving": "Problem Solving Session"}
    for kind, title in names.items():
        made = await adapter.create_session("ann", session_type=kind)
        assert made.startswith(f"{kind}_session_")
        assert (await adapter.get_session("ann", made)).title == title
    odd = await adapter.create_session("ann", None, "odd")
    found = await adapter.get_session("ann", odd)
    assert (odd[:13], found.title, found.session_type) == ("chat_session_", "New Session", "odd")


@case("create_session twice in one microsecond")
async def _(adapter, tmp_path):
    still = LegacyStorageAdapter(config_of(tmp_path / "still"), now=lambda: STILL)
    ids = {await still.create_session("ann") for _ in range(5)}
    assert len(ids) == 5
    assert "chat_session_20250102_030405_000006" in ids


@case("create_session for a persona")
async def _(adapter, caplog):
    for persona in ("persona_x", "AI_lab", "sarah_johnson", "", None):
        session = await adapter.create_session(persona)
        assert (await adapter.get_session(login_name(), session)).user_id == login_name()
        if persona:
            assert await adapter.get_session(persona, session) is None
    assert "goes to user" in caplog.text


@case("get_session")
async def _(adapter):
    assert await adapter.get_session("ann", "no") is None
    assert not adapter.base_path.exists()
    session = await adapter.create_session("ann", "T")
    found = await adapter.get_session("ann", session)
    assert isinstance(found, records.FFSessionDTO)
    assert (found.session_id, found.user_id, found.session_name, found.message_count) == (session, "ann", "T", 0)
    path = adapter.base_path / f"text_chat/sessions/ann/{session}/metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unknown": 1}))
    assert (await adapter.get_session("ann", session)).title == "T"
    path.write_text("no object")
    assert await adapter.get_session("ann", session) is None


@case("update_session")
async def _(adapter):
    assert await adapter.update_session("ann", "no", {"title": "x"}) is False
    session = await adapter.create_session("ann", "T")
    await adapter.add_message("ann", session, FFMessageDTO("user", "x"))
    updates = {"title": "U", "metadata": {"a": 1}, "session_type": "odd", "message_count": 9}
    assert await adapter.update_session("ann", session, updates) is True
    assert await adapter.update_session("ann", session, {"metadata": {"b": 2}}) is True
    found = await adapter.get_session("ann", session)
    assert (found.title, found.metadata, found.session_type) == ("U", {"a": 1, "b": 2}, "chat")
    assert found.message_count == 1  # counted, whatever was said
    with pytest.raises(TypeError):
        await adapter.update_session("ann", session, {"metadata": None})


@case("update_session_metadata")
async def _(adapter):
    session = await adapter.create_session("ann")
    assert await adapter.update_session_metadata("ann", session, {"a": 1}) is True
    assert (await adapter.get_session("ann", session)).metadata == {"a": 1}
    assert await adapter.update_session_metadata("ann", "no", {"a": 1}) is False


@case("list_sessions")
async def _(adapter):
    assert await adapter.list_sessions("nobody") == []
    kinds = ["problem_solving", "chat", "panel", "debate"]
    made = [await adapter.create_session("ann", session_type=kinds[n % 4]) for n in range(28)]
    listed = [one.session_id for one in await adapter.list_sessions("ann")]
    assert listed == sorted(made, reverse=True)  # all, the highest id first
    assert [one.session_id for one in await adapter.list_sessions("ann", 0)] == listed[:20]
    assert [one.session_id for one in await adapter.list_sessions("ann", 5, 10)] == listed[10:15]
    assert await adapter.list_sessions("ann", -1) == []


@case("delete_session")
async def _(adapter):
    session = await filled(adapter, 3)
    document = await adapter.save_document("ann", session, "a.txt", b"secret")
    await adapter.update_context("ann", session, context())
    assert await adapter.delete_session("ann", "absent") is True
    assert await adapter.delete_session("ann", session) is True
    assert await adapter.get_session("ann", session) is None
    assert await adapter.list_sessions("ann") == []
    assert await adapter.get_all_messages("ann", session) == []
    assert await adapter.get_document("ann", session, document) is None
    assert await adapter.get_context("ann", session) is None
    archive = [name for name in files_in(adapter.base_path) if name.startswith("text_chat/archive/ann/")]
    kept = {Path(name).name for name in archive}
    assert kept == {"metadata.json", "messages.jsonl", "context.json", "original.txt"}
    stored = json.loads(
        next((adapter.base_path / "text_chat/archive/ann" / session).glob("*/metadata.json")).read_text()
    )
    assert (stored["active"], stored["id"], "archived_at" in stored) == (False, session, True)


@case("delete_session without a backup")
async def _(adapter, tmp_path):
    plain = LegacyStorageAdapter(config_of(tmp_path / "b", storage={"backup_before_delete": False}))
    session = await filled(plain, 2)
    await plain.save_document("ann", session, "a.txt", b"secret")
    assert await plain.delete_session("ann", session) is True
    left = [name for name in files_in(plain.base_path) if session in name or "doc_" in name]
    assert left == []


# -- messages ---------------------------------------------------------------------------------------------------------


@case("add_message")
async def _(adapter):
    session = await adapter.create_session("ann")
    message = FFMessageDTO("dr_who", "hi", attachments=["a.png"], metadata={"k": 1, "bad": float("nan")})
    assert await adapter.add_message("ann", session, message) is True
    (found,) = await adapter.get_messages("ann", session)
    assert found.to_dict() == {**message.to_dict(), "metadata": {"k": 1, "bad": "nan"}}
    assert (await adapter.get_session("ann", session)).message_count == 1
    big = FFMessageDTO("user", "x" * 1024 * 1024)
    assert await adapter.add_message("ann", session, big) is False
    assert await adapter.add_message("ann", session, FFMessageDTO("user", "x", metadata={"o": object()})) is False
    assert await adapter.add_message("ann", session, FFMessageDTO("user", "\ud800")) is False
    with pytest.raises(AttributeError):
        await adapter.add_message("ann", session, {"role": "user", "content": "x"})
    assert len(await adapter.get_all_messages("ann", session)) == 1


@case("add_message to an unknown session")
async def _(adapter):
    for session in ("unknown", "../../evil", "/abs", ".", "", "a" * 400):
        assert await adapter.add_message("bob", session, FFMessageDTO("user", f"in {session}")) is True
        assert [one.content for one in await adapter.get_messages("bob", session)] == [f"in {session}"]
        assert await adapter.get_session("bob", session) is None
    assert await adapter.list_sessions("bob") == []
    assert all(adapter.base_path in path.parents for path in adapter.base_path.parent.rglob("*.jsonl"))
    assert len(await adapter.search_messages("bob", "in ")) == 6


@case("add_message for a persona")
async def _(adapter):
    assert await adapter.add_message("agent_x", "s", FFMessageDTO("user", "hi")) is True
    assert await adapter.get_messages("agent_x", "s") == []
    assert len(await adapter.get_messages(login_name(), "s")) == 1


@case("get_messages")
async def _(adapter):
    session = await filled(adapter)
    contents = [f"message {number}" for number in range(45)]

    async def page(*arguments):
        return [one.content for one in await adapter.get_messages("ann", session, *arguments)]

    assert await page() == contents[:20]
    assert await page(0) == contents[:20]
    assert await page(None, 40) == contents[40:]
    assert await page(7, 3) == contents[3:10]
    assert await page(-1) == []
    assert await adapter.get_messages("ann", "missing") == []
    log = adapter.base_path / f"text_chat/sessions/ann/{session}/messages.jsonl"
    log.write_bytes(b'junk\n[1]\n{"role": "user"}\n\n' + log.read_bytes() + b'{"role": "user", "con')
    assert await page(100) == contents
    assert await page(5) == contents[:5]  # junk does not shift pages


@case("get_all_messages")
async def _(adapter):
    session = await filled(adapter)
    found = await adapter.get_all_messages("ann", session)
    assert [one.content for one in found] == [f"message {number}" for number in range(45)]
    assert await adapter.get_all_messages("ann", "missing") == []


@case("search_messages")
async def _(adapter):
    session = await filled(adapter, 45)
    other = await filled(adapter, 5)
    await filled(adapter, 3, user="bob")
    assert [one.content for one in await adapter.search_messages("ann", "MESSAGE 44")] == ["message 44"]
    assert len(await adapter.search_messages("ann", "")) == 50
    assert len(await adapter.search_messages("ann", "message", session_id=other)) == 5
    assert len(await adapter.search_messages("ann", "message", session_ids=[session])) == 45
    assert await adapter.search_messages("nobody", "x") == []
    many = await filled(adapter, 70)
    assert len(await adapter.search_messages("ann", "message")) == 100  # default_search_limit
    assert len(await adapter.search_messages("ann", "message", session_id=many)) == 70


@case("advanced_search")
async def _(adapter):
    session = await adapter.create_session("ann")
    for text in ("the river Danube", "a river", "nothing of it"):
        await adapter.add_message("ann", session, FFMessageDTO("user", text))
    await adapter.save_document("ann", session, "danube.txt", b"x", {"description": "maps of the river"})
    await adapter.update_context("ann", session, context(summary="the river Danube"))
    found = await adapter.advanced_search(
        FFSearchQueryDTO("river Danube", "ann", include_documents=True, include_context=True)
    )
    assert (found[0].type, found[0].content) == ("message", "the river Danube")
    assert {one.type for one in found} == {"message", "document", "context"}
    assert found[0].relevance_score == pytest.approx(3.0)
    assert found[0].highlights == [(4, 16)]
    scores = [one.relevance_score for one in found]
    assert scores == sorted(scores, reverse=True)
    only = FFSearchQueryDTO("river", message_roles=["assistant"])
    assert await adapter.advanced_search(only) == []
    assert len(await adapter.advanced_search(FFSearchQueryDTO("river", max_results=1))) == 1
    assert await adapter.advanced_search(FFSearchQueryDTO("river", "nobody")) == []


@case("search_by_entities")
async def _(adapter):
    await adapter.add_message("ann", "s", FFMessageDTO("user", "mail x@y.org"))
    await adapter.add_message("ann", "s", FFMessageDTO("user", "mail z@y.org"))
    found = await adapter.search_by_entities({"emails": ["x@y.org"]}, "ann")
    assert [one.content for one in found] == ["mail x@y.org"]
    await adapter.update_context("ann", "s", context())
    assert [one.type for one in await adapter.search_by_entities({"topics": ["water"]})] == ["context"]
    assert await adapter.search_by_entities({"emails": ["x@y.org"]}, "bob") == []


@case("search_by_time_range")
async def _(adapter):
    for day in (1, 2, 3):
        await adapter.add_message("ann", "s", FFMessageDTO("user", f"day {day}", timestamp=f"2025-03-0{day}T12:00:00"))
    found = await adapter.search_by_time_range(
        datetime.fromisoformat("2025-03-02"), datetime.fromisoformat("2025-03-04"), "ann"
    )
    assert [one.content for one in found] == ["day 2", "day 3"]
    assert len(await adapter.search_by_time_range("2025-03-01", "2025-03-09", None, "day 3", limit=1)) == 1


@case("extract_entities")
async def _(adapter):
    text = "see https://a.org/x @ann #tag PROJ-12 1.5 10.0.0.1 a@b.org /etc/hosts github.com/o/r happy"
    found = await adapter.extract_entities(f"{text} ```x = 1``` a@b.org")
    assert found["urls"] == ["https://a.org/x"]
    assert (found["mentions"], found["hashtags"], found["jira_tickets"]) == (["@ann"], ["#tag"], ["PROJ-12"])
    assert (found["emails"], found["ip_addresses"], found["code_blocks"]) == (
        ["a@b.org"],
        ["10.0.0.1"],
        ["```x = 1```"],
    )
    assert "/etc/hosts" in found["file_paths"]
    assert (found["github_repos"], found["languages"]) == (["github.com/o/r"], ["python"])
    assert "1.5" in found["numbers"]
    assert await adapter.extract_entities("") == {}


@case("build_search_index")
async def _(adapter):
    session = await adapter.create_session("ann")
    await adapter.add_message("ann", session, FFMessageDTO("user", "river river a@b.org"))
    index = await adapter.build_search_index("ann")
    assert set(index) == {"user_id", "created_at", "sessions", "entities", "word_frequencies"}
    assert index["word_frequencies"]["river"] == 2
    assert index["entities"]["emails"] == {"a@b.org": [session]}
    assert index["sessions"] == {session: {"message_count": 1}}


@case("get_session_stats")
async def _(adapter):
    session = await filled(adapter)
    await adapter.save_document("ann", session, "a.txt", b"12345")
    await adapter.update_context("ann", session, context())
    await adapter.save_context_snapshot("ann", session, context())
    stats = await adapter.get_session_stats("ann", session)
    keys = "session_id user_id created_at updated_at storage_path message_count document_count total_size_bytes"
    keys += " average_message_size vector_count has_context context_snapshots last_activity"
    assert set(stats) == set(keys.split())
    assert (stats["message_count"], stats["document_count"]) == (45, 1)
    assert (stats["has_context"], stats["context_snapshots"]) == (True, 1)
    assert (adapter.base_path / stats["storage_path"]).is_dir()
    with pytest.raises(ValueError, match="not found"):
        await adapter.get_session_stats("ann", "missing")


@pytest.mark.parametrize("name", CASES)
async def test_the_storage_manager(name, tmp_path, caplog):
    await CASES.run(name, tmp_path, caplog)


def test_every_public_call_of_the_manager_has_a_case():
    calls = {name for name, one in vars(LegacyStorageAdapter).items() if callable(one) and not name.startswith("_")}
    calls.remove("close")
    assert len(calls) == 46
    told = " ".join(CASES)
    without = {name for name in calls if name not in told}
    assert without == THE_REST
