"""What records of v2 become. The usual session and profile have a short way, which must give the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.definitions import persona_profile
from migration.documents import DocumentFacts, content_type_of, document_metadata, registry_row
from migration.embed import SourceObject, source_object
from migration.transform import (
    Part,
    SchemaTransformer,
    SessionFacts,
    archived_at,
    exact_json,
    iso_of,
    newest,
    plain_profile,
    plain_session,
    plain_session_metadata,
    profile,
    session_generation,
    session_metadata,
    session_type_of,
    shared_conversation,
    title_of,
)
from tests.examples import examples

PATH = "users/ada/chat_session_20250801_100000"
SESSION = "chat_session_20250801_100000"


def record(value: object) -> SourceObject:
    text = value if isinstance(value, str) else json.dumps(value)
    found = source_object(text.encode())
    assert isinstance(found, SourceObject), found
    return found


def session_facts(source: SourceObject | None, **more: Any) -> SessionFacts:
    given: dict[str, Any] = {"user_id": "ada", "session_id": SESSION, "generation": "G3", "messages": 2} | more
    return SessionFacts(parts=(Part(PATH, source),), **given)


def metadata(source: SourceObject | None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(session_metadata(session_facts(source, **more)))
    return made


# ---- the short ways --------------------------------------------------------------------------------------------------

TEXTS = st.one_of(st.sampled_from(['""', '"x"', r'"\u0041\n"', '"Où"', r'"\ud83d\ude00"', r'"\ud800"']))
VALUES = st.one_of(TEXTS, st.sampled_from(["1", "1.0", "-0", "null", "true", "{}", '{"a": [1.50, NaN]}', "[]", "1e5"]))
KEYS = ["session_id", "title", "session_name", "created_at", "updated_at", "session_type", "id", r"\u0069d"]
KEYS += ["message_count", "metadata", r"session\u005ftype", r"t\u0069tle"]


@st.composite
def session_texts(draw: st.DrawFn) -> str:
    usual = {"user_id": '"ada"', "session_id": '"s"', "title": '"T"', "created_at": '"c"', "updated_at": '"u"'}
    usual |= {"metadata": '{"k":  1.50}', "message_count": "2"}
    pairs = [(key, value) for key, value in usual.items() if draw(st.integers(0, 15))]
    pairs += draw(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=2))
    space = draw(st.sampled_from(["", " ", "\n  "]))
    return "{" + f",{space}".join(f'"{key}":{space}{value}' for key, value in draw(st.permutations(pairs))) + "}"


@given(session_texts(), st.sampled_from([SESSION, "panel_session_1", "other"]))
@settings(max_examples=examples(500), deadline=None)
def test_the_short_way_for_sessions_gives_the_same_bytes(text: str, session: str) -> None:
    plain = plain_session(text.encode())
    if plain is None:
        return
    source = record(text)
    generation = session_generation(source, session, under_users=True, own_ids=None)
    facts = SessionFacts("ada", session, (Part(PATH, source),), generation, 2)
    assert plain_session_metadata(plain, text.encode(), session, PATH, 2) == session_metadata(facts)


@st.composite
def profile_texts(draw: st.DrawFn) -> str:
    usual = {"user_id": '"ada"', "username": '"A"', "created_at": '"c"', "updated_at": '"u"'}
    usual |= {"preferences": '{"k":  1.50}', "metadata": "{}"}
    pairs = [(key, value) for key, value in usual.items() if draw(st.integers(0, 15))]
    pairs += draw(st.lists(st.tuples(st.sampled_from([*usual, r"\u0075sername", "extra"]), VALUES), max_size=2))
    return "{" + ", ".join(f'"{key}": {value}' for key, value in draw(st.permutations(pairs))) + "}"


@given(profile_texts())
@settings(max_examples=examples(500), deadline=None)
def test_the_short_way_for_profiles_gives_the_same_bytes(text: str) -> None:
    plain = plain_profile(text.encode(), "ada", "users/ada/profile.json")
    if plain is None:
        return
    path = "users/ada/profile.json"
    assert plain == profile("ada", record(text), generation="G2", path=path, mtime_ns=0, source_timezone=None)


USUAL = (
    '{"user_id": "ada", "session_id": "s", "title": "T", "created_at": "c", "updated_at": "u", '
    '"metadata": {}, "message_count": 1}'
)


def test_the_short_ways_are_taken_for_what_v2_writes() -> None:
    assert plain_session(USUAL.encode()) is not None
    assert plain_session(USUAL.replace("T", "Où").encode()) is not None
    usual = '{"user_id": "a", "username": "", "created_at": "c", "updated_at": "u", "preferences": {}, "metadata": {}}'
    assert plain_profile(usual.encode(), "a", "p") is not None
    assert plain_profile(usual.encode(), "b", "p") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"T"', '""'),
        ('"T"', "7"),
        ('"c"', '""'),
        ('"u"', "null"),
        ('"metadata": {}', '"metadata": []'),
        ('"metadata": {}', '"metadata": {"a": NaN}'),
        ('"metadata": {}', '"session_type": "", "metadata": {}'),
        ('"session_id"', '"id": "s", "session_id"'),
        ('"title": "T", ', ""),
        ('{"user', ' {"user'),
        ('"T"', '"\udcff"'),
        ('"metadata": {}', f'"metadata": {{"a": {"[" * 1100}{"]" * 1100}}}'),
    ],
)
def test_anything_else_takes_the_general_way(old: str, new: str) -> None:
    assert plain_session(USUAL.replace(old, new).encode("utf-8", "surrogateescape")) is None


# ---- sessions --------------------------------------------------------------------------------------------------------


def test_every_field_of_a_session_has_its_place_and_the_record_keeps_its_bytes() -> None:
    text = '{"session_id": "s", "title": "T", "created_at": "c", "updated_at": "u", "metadata": {"a":  1.50}}'
    made = session_metadata(session_facts(record(text)))
    assert list(json.loads(made)) == [
        "id",
        "user_id",
        "title",
        "created_at",
        "updated_at",
        "metadata",
        "session_type",
        "message_count",
        "active",
        "legacy",
    ]
    assert b'"metadata": {"a":  1.50}' in made
    assert b'"record": ' + text.encode() in made


@pytest.mark.parametrize(
    ("source", "title"),
    [
        (None, "Untitled"),
        ({}, "Untitled"),
        ({"title": "", "session_name": "N"}, "N"),
        ({"title": 7, "session_name": "N"}, "N"),
        ({"title": "T", "session_name": "N"}, "T"),
        ({"session_name": None}, "Untitled"),
    ],
)
def test_titles(source: dict[str, Any] | None, title: str) -> None:
    assert title_of(record(source) if source is not None else None) == title


@pytest.mark.parametrize(
    ("source", "session", "kind"),
    [
        ({"session_type": "custom"}, "panel_x", "custom"),
        ({"session_type": ""}, "panel_x", "panel"),
        ({}, "debate_x", "debate"),
        ({}, "problem_solving_x", "problem_solving"),
        (None, "panel", "chat"),
        ({"session_type": 7}, "x", "chat"),
    ],
)
def test_types(source: dict[str, Any] | None, session: str, kind: str) -> None:
    assert session_type_of(record(source) if source is not None else None, session) == kind


@pytest.mark.parametrize(
    ("source", "session", "under_users", "own_ids", "generation"),
    [
        ({}, SESSION, False, None, "G1"),
        (None, SESSION, False, True, "G1"),
        (None, SESSION, True, None, "G3"),
        (None, SESSION, True, True, "G2"),
        (None, "mine", True, False, "external"),
        (None, "mine", True, True, "G2"),
        ({"session_type": None}, SESSION, True, None, "G6"),
        ({"id": 1}, SESSION, True, None, "G2"),
        ({"id": 1, "session_id": 1}, SESSION, True, None, "G3"),
        ({}, SESSION, True, True, "G3"),
    ],
)
def test_generations(
    source: dict[str, Any] | None, session: str, under_users: bool, own_ids: bool | None, generation: str
) -> None:
    found = record(source) if source is not None else None
    assert session_generation(found, session, under_users=under_users, own_ids=own_ids) == generation


@pytest.mark.parametrize(
    ("more", "created", "updated"),
    [
        ({}, "1970-01-01T00:00:00.000000+00:00", "1970-01-01T00:00:00.000000+00:00"),
        ({"first_timestamp": "f"}, "f", "1970-01-01T00:00:00.000000+00:00"),
        ({"first_timestamp": "f", "last_timestamp": "l"}, "f", "l"),
    ],
)
def test_absent_times_come_from_messages_else_from_files_and_are_said_to(
    more: dict[str, str], created: str, updated: str
) -> None:
    made = metadata(record({"created_at": 5, "updated_at": ""}), **more)
    assert (made["created_at"], made["updated_at"]) == (created, updated)
    assert made["legacy"]["inferred"] == ["created_at", "updated_at"]


def test_given_times_are_kept_and_get_the_offset_of_the_zone() -> None:
    source = record({"created_at": "2025-08-01T10:00:00", "updated_at": "2025-08-01T10:00:00Z"})
    made = metadata(source, source_timezone="Europe/Berlin", first_timestamp="f", last_timestamp="l")
    assert (made["created_at"], made["updated_at"]) == ("2025-08-01T10:00:00+02:00", "2025-08-01T10:00:00Z")
    assert "inferred" not in made["legacy"]
    assert made["legacy"]["record"]["created_at"] == "2025-08-01T10:00:00"


def test_an_archived_session_is_not_active_and_says_when_it_was_deleted() -> None:
    made = metadata(None, archived_at=archived_at("20250802_101112"))
    assert (made["active"], made["archived_at"]) == (False, "2025-08-02T10:11:12")
    assert archived_at("20251399_000000") == "20251399_000000"


def test_a_session_of_several_parts_keeps_all_records_and_takes_the_newest() -> None:
    parts = [
        Part("a", record({"updated_at": "1", "title": "old"}), ("session.json",), 2),
        Part("b", record({"updated_at": "2", "title": "new"}), (), 3),
        Part("c", None),
        Part("d", record({"updated_at": "2", "title": "later"})),
    ]
    facts = SessionFacts("ada", "s", parts, "G3", 5, exact={"x": {"record": b"{}", "lines": 1}}, split_with=["eve"])
    made = json.loads(session_metadata(facts))
    assert made["title"] == "new"
    legacy = made["legacy"]
    assert (legacy["path"], legacy["record"]["title"], legacy["split_with"]) == ("a", "new", "eve")
    assert [(part["path"], part["lines"]) for part in legacy["parts"]] == [("a", 2), ("b", 3), ("c", 0), ("d", 0)]
    assert legacy["parts"][0] == {"path": "a", "record": parts[0].record.plain(), "files": ["session.json"], "lines": 2}  # type: ignore[union-attr]
    assert legacy["exact"] == {"x": {"record": {}, "lines": 1}}
    assert newest([Part("c", None)]) is None


def test_several_other_halves_are_a_list() -> None:
    assert metadata(None, split_with=["bob", "eve"])["legacy"]["split_with"] == ["bob", "eve"]


@pytest.mark.parametrize(
    ("user", "session", "shared"),
    [
        ("persona_bob", "persona_bob_x", "x"),
        ("persona_bob", "persona_bob_", None),
        ("persona_bob", "persona_eve_x", None),
        ("bob", "bob_x", None),
    ],
)
def test_the_common_id_of_a_conversation_stored_once_a_persona(user: str, session: str, shared: str | None) -> None:
    assert shared_conversation(user, session) == shared


def test_what_the_way_back_needs_is_embedded_as_bytes_where_it_is_bytes() -> None:
    assert exact_json({"a\udcff": {"record": b'{"x": 1.0}', "lines": 2}}) == (
        b'{"a\\udcff": {"record": {"x": 1.0}, "lines": 2}}'
    )


@pytest.mark.parametrize(
    ("mtime_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000+00:00"),
        (1_754_042_400_123_456_789, "2025-08-01T10:00:00.123456+00:00"),
        (-1, "1969-12-31T23:59:59.999999+00:00"),
        (2**40 * 10**9, "9999-12-31T23:59:59.999999+00:00"),
        (2**62 * 10**9, "9999-12-31T23:59:59.999999+00:00"),
        (-(2**40) * 10**9, "0001-01-01T00:00:00.000000+00:00"),
    ],
)
def test_file_times_of_any_size_have_a_text(mtime_ns: int, text: str) -> None:
    assert iso_of(mtime_ns) == text


# ---- users, documents, personas --------------------------------------------------------------------------------------


def test_a_profile_keeps_what_is_of_the_right_kind() -> None:
    source = record({"username": 7, "preferences": [], "metadata": {"a": 1}, "created_at": "c"})
    made = json.loads(
        profile("ada", source, generation="G1", path="ada/profile.json", mtime_ns=0, source_timezone=None)
    )
    assert (made["username"], made["preferences"], made["metadata"]) == ("", {}, {"a": 1})
    assert made["legacy"]["inferred"] == ["updated_at"]


def test_further_profiles_of_a_user_are_kept_beside() -> None:
    first, second = source_object(b'\xef\xbb\xbf{"user_id": "ada"}'), source_object(b'{"user_id": "ada"}\n')
    assert isinstance(first, SourceObject)
    assert isinstance(second, SourceObject)
    made = json.loads(
        profile(
            "ada",
            first,
            generation="G2",
            path="users/ada/profile.json",
            mtime_ns=0,
            source_timezone=None,
            others=[("ada/profile.json", second)],
        )
    )
    assert made["legacy"]["others"] == [{"path": "ada/profile.json", "record": {"user_id": "ada"}}]
    assert made["legacy"]["exact"] == {"profile.json": {"prefix": "\ufeff"}, "ada/profile.json": {"suffix": "\n"}}


def document(entry: dict[str, Any] | None, **more: Any) -> DocumentFacts:
    given: dict[str, Any] = {"size": 4, "sha256": "ff", "mtime_ns": 0} | more
    found = record(entry) if entry is not None else None
    return DocumentFacts("ada", "s", "1a_a.txt", "p/1a_a.txt", "G3", found, **given)


def test_a_document_with_its_entry() -> None:
    entry = {"original_name": "a.txt", "mime_type": "text/x", "uploaded_at": "u", "uploaded_by": "eve", "analysis": {}}
    facts = document(entry)
    made = json.loads(document_metadata(facts))
    assert (made["title"], made["content_type"], made["created_at"], made["created_by"]) == (
        "a.txt",
        "text/x",
        "u",
        "eve",
    )
    assert made["id"] == facts.id
    assert made["legacy"] == {"generation": "G3", "path": "p/1a_a.txt", "record": entry}
    assert registry_row(facts) == ["document", facts.id, "ada", "s", "a.txt", "text/x", "4", "ff"]


def test_a_document_without_an_entry_and_an_entry_without_a_document() -> None:
    alone = json.loads(document_metadata(document(None)))
    assert (alone["title"], alone["content_type"], alone["created_by"]) == ("1a_a.txt", "text/plain", "ada")
    assert alone["legacy"]["inferred"] == ["created_at"]
    missing = json.loads(document_metadata(document({}, size=None, sha256=None)))
    assert missing["legacy"]["missing_original"] is True
    assert (missing["size_bytes"], missing["sha256"]) == (0, None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.pdf", "application/pdf"), ("a", "application/octet-stream"), ("a.unknown", "application/octet-stream")],
)
def test_media_types_come_from_the_extension(name: str, kind: str) -> None:
    assert content_type_of(name) == kind


def test_a_persona_of_the_first_schema() -> None:
    source = {"persona_id": "x", "name": "X", "traits": ["a"], "expertise": "law", "communication_style": "dry"}
    made = json.loads(persona_profile("x", source, owner_id=None, path="p", generation="G3"))
    assert (made["traits"], made["knowledge_areas"], made["voice"], made["owner_id"]) == (["a"], ["law"], "dry", None)
    assert made["metadata"] == {}


def test_a_persona_of_the_second_schema() -> None:
    behaviour = {"personality": ["kind"], "values": "truth", "strengths": None, "communication_style": "warm"}
    source = {"id": "other", "behavioral_traits": behaviour | {"decision_making": "slow"}, "expertise_areas": ["law"]}
    source |= {"owner_id": "eve", "llm_config_persona": {"a": 1}, "metadata": {"m": 1}}
    made = json.loads(persona_profile("x", source, owner_id=None, path="p", generation="G3"))
    assert (made["id"], made["name"], made["traits"]) == ("x", "x", ["kind", "truth"])
    assert (made["voice"], made["behavioral_rules"], made["owner_id"]) == ("warm", ["slow"], "eve")
    assert made["metadata"] == {"llm_config_persona": {"a": 1}, "m": 1, "declared_id": "other"}


# ---- record by record ------------------------------------------------------------------------------------------------


def test_single_messages_go_through_the_same_rules() -> None:
    transformer = SchemaTransformer()
    assert transformer.transform_message({"message_id": "m", "content": "\ud800"}) == {"id": "m", "content": "\ud800"}
    assert transformer.transform_message({"id": "m"}) == {"id": "m", "metadata": {"legacy_id": "m"}}
    numbered = [transformer.transform_message({}, user_id="u", session_id="s", line=line)["id"] for line in (1, 2)]
    assert len(set(numbered)) == 2


def test_single_sessions_go_through_the_same_rules() -> None:
    made = SchemaTransformer().transform_session({"session_name": "N", "user_id": ""}, session_id="s", user_id="ada")
    assert (made["title"], made["user_id"], made["message_count"]) == ("N", "ada", 0)


def test_what_cannot_be_json_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    for value in (circle, {"a": {1, 2}}):
        with pytest.raises(ValueError, match=r"JSON|Circular"):
            SchemaTransformer().transform_message(value)
        with pytest.raises(ValueError, match=r"JSON|Circular"):
            SchemaTransformer().transform_session(value, session_id="s", user_id="ada")
