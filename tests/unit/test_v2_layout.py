"""Which rule claims a file below a user directory: each file is claimed once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.v2.layout import (
    ChildFiles,
    SessionFiles,
    archive_of,
    is_redirected,
    natural_home,
    sanitised,
    sort_child,
)
from migration.v2.names import V2Names
from migration.v2.read import FileFacts

NAMES = V2Names()


def sort(*paths: str, empty: tuple[str, ...] = ()) -> ChildFiles:
    child = paths[0].partition("/")[0]
    facts = {path: FileFacts(1, 0) for path in paths} | {path: FileFacts(0, 0) for path in empty}
    return sort_child(child, facts, NAMES)


def places(found: ChildFiles) -> list[str]:
    sessions = [*found.sessions.values(), *found.archived.values()]
    taken = [*found.attic, *found.ignored, *found.personas.values()]
    for files in sessions:
        taken += [p for p in (files.session, files.messages, files.context, files.document_index) if p is not None]
        taken += [*files.documents.values(), *files.history.values(), *files.shards.values()]
    for vectors in found.vectors.values():
        taken += [path for path in (vectors.embeddings, vectors.index) if path is not None]
    return sorted(taken)


PART_NAMES = [
    "session.json",
    "messages.jsonl",
    "x_messages.jsonl",
    "_messages.jsonl",
    "situational_context.json",
    "documents",
    "context_history",
    "metadata.json",
    "a.json",
    "a.txt",
    "s.backup_20250802_101112",
    "messages.jsonl.lock",
    "vectors",
    "embeddings.npy",
    "vector_index.jsonl",
    "inner",
    "x.tmp",
    "sessions",
    "personas",
    "a.json.tmp.12ab",
]
PARTS = st.sampled_from(PART_NAMES)


@given(
    st.sampled_from(["s", "sessions", "personas", "documents", "s.backup_20250802_101112"]),
    st.sets(st.lists(PARTS, min_size=1, max_size=4).map("/".join), max_size=10),
    st.booleans(),
)
def test_every_file_is_in_exactly_one_place(child: str, below: set[str], empty: bool) -> None:
    facts = {f"{child}/{path}": FileFacts(0 if empty else 1, 0) for path in below}
    assert places(sort_child(child, facts, NAMES)) == sorted(facts)


def test_the_files_of_a_session() -> None:
    found = sort(
        "s/session.json",
        "s/messages.jsonl",
        "s/situational_context.json",
        "s/marcus_chen_messages.jsonl",
        "s/documents/metadata.json",
        "s/documents/1a_a.txt",
        "s/context_history/context_1.json",
    )
    assert found.sessions == {
        "s": SessionFiles(
            "s",
            "s/session.json",
            "s/messages.jsonl",
            "s/situational_context.json",
            "s/documents/metadata.json",
            {"1a_a.txt": "s/documents/1a_a.txt"},
            {"context_1.json": "s/context_history/context_1.json"},
            {"marcus_chen_messages.jsonl": "s/marcus_chen_messages.jsonl"},
        )
    }
    assert found.attic == found.ignored == []


@pytest.mark.parametrize(
    "path",
    [
        "s/session.json",
        "s/messages.jsonl",
        "s/x_messages.jsonl",
        "s/situational_context.json",
        "s/documents/a.txt",
        "s/context_history/a.json",
    ],
)
def test_any_one_of_its_files_makes_a_session_of_a_child(path: str) -> None:
    assert list(sort(path).sessions) == ["s"]


@pytest.mark.parametrize("name", ["session.json", "messages.jsonl", "x_messages.jsonl"])
def test_below_a_child_only_records_and_messages_make_one(name: str) -> None:
    assert list(sort(f"s/inner/{name}").sessions) == ["s/inner"]


@pytest.mark.parametrize("name", ["situational_context.json", "documents/a.txt", "context_history/a.json"])
def test_below_a_child_nothing_else_makes_one(name: str) -> None:
    found = sort(f"s/inner/{name}")
    assert not found.sessions
    assert found.attic == [f"s/inner/{name}"]


@pytest.mark.parametrize(
    "path",
    [
        "s/documents/folder/a.txt",
        "s/context_history/a.txt",
        "s/a.txt",
        "s/session.json.backup_20250802_101112",
        "s/documents/a.txt.backup_20250802_101112",
        "s/messages.jsonl.tmp",
        "s/documents/a.txt.tmp.12ab",
    ],
)
def test_a_session_has_no_place_for_other_files(path: str) -> None:
    found = sort("s/session.json", path)
    assert found.attic == [path]


def test_what_stands_in_documents_is_a_document_whatever_its_name() -> None:
    found = sort("s/session.json", "s/documents/messages.jsonl", "s/documents/session.json")
    assert list(found.sessions) == ["s"]
    assert set(found.sessions["s"].documents) == {"messages.jsonl", "session.json"}


def test_only_empty_locks_are_ignored() -> None:
    found = sort("s/session.json", "s/full.lock", empty=("s/empty.lock",))
    assert (found.ignored, found.attic) == (["s/empty.lock"], ["s/full.lock"])


def test_vector_sets_stand_below_sessions_by_the_path_of_their_session() -> None:
    found = sort(
        "sessions/a/vectors/embeddings.npy",
        "sessions/my custom/ x/vectors/vector_index.jsonl",
        "sessions/x/session.json",
        "sessions/vectors/embeddings.npy",
        "sessions/a/vectors/other.txt",
    )
    assert {session: files.directory for session, files in found.vectors.items()} == {
        "a": "sessions/a/vectors",
        "my custom/ x": "sessions/my custom/ x/vectors",
    }
    assert list(found.sessions) == ["sessions/x"]
    assert found.attic == ["sessions/a/vectors/other.txt", "sessions/vectors/embeddings.npy"]


def test_personas_of_a_user_are_json_files_directly_below_personas() -> None:
    found = sort("personas/x.json", "personas/.json", "personas/in/y.json", "personas/z.txt")
    assert found.personas == {"x": "personas/x.json"}
    assert found.attic == ["personas/.json", "personas/in/y.json", "personas/z.txt"]


def test_names_come_from_the_configuration() -> None:
    names = V2Names(session="meta.json", messages="log.jsonl", documents="docs")
    facts = {path: FileFacts(1, 0) for path in ("s/meta.json", "s/log.jsonl", "s/docs/a", "s/session.json")}
    found = sort_child("s", facts, names)
    assert found.sessions["s"].session == "s/meta.json"
    assert found.sessions["s"].documents == {"a": "s/docs/a"}
    assert found.attic == ["s/session.json"]


@pytest.mark.parametrize(
    ("session", "archive"),
    [
        ("s", None),
        ("s.backup_20250802_101112", ("s", "20250802_101112")),
        ("my custom/ s.backup_20250802_101112", ("my custom/ s", "20250802_101112")),
        ("outer.backup_20250801_000000/inner", ("outer/inner", "20250801_000000")),
        ("s.backup_2025", None),
    ],
)
def test_deleted_sessions(session: str, archive: tuple[str, str] | None) -> None:
    assert archive_of(session) == archive


@pytest.mark.parametrize(
    ("user_id", "directory"),
    [
        ("ada", "ada"),
        ("a b", "a_b"),
        ("a/b", "a_b"),
        ("zoë", "zoe"),
        ("..", "unnamed"),
        ("日本", "unnamed"),
        (".a.", "a"),
        ("a@b.org", "a_b.org"),
        ("x" * 300, "x" * 255),
        ("x" * 300 + ".json", "x" * 250 + ".json"),
    ],
)
def test_the_directory_that_v2_made_for_a_user(user_id: str, directory: str) -> None:
    assert sanitised(user_id) == directory


def test_the_home_of_a_user_is_the_sanitised_name_else_the_id_itself() -> None:
    assert natural_home("a b", {"a_b", "a b"}.__contains__) == "a_b"
    assert natural_home("a b", {"a b"}.__contains__) == "a b"
    assert natural_home("a b", set().__contains__) is None


@pytest.mark.parametrize("user_id", ["", ".", "..", "a/b", "a\0b", "x" * 300])
def test_no_id_leads_out_of_the_users_directory(user_id: str) -> None:
    asked: list[str] = []

    def is_user(name: str) -> bool:
        asked.append(name)
        return False

    assert natural_home(user_id, is_user) is None
    assert not {name for name in asked if name in {"", ".", ".."} or "/" in name or "\0" in name or len(name) > 255}


@pytest.mark.parametrize(
    ("user_id", "redirected"),
    [("persona_x", True), ("AGENT_1", True), ("Jake_Thompson", True), ("ada", False), ("my_persona_x", False)],
)
def test_users_that_late_v2_redirected(user_id: str, redirected: bool) -> None:
    assert is_redirected(user_id) is redirected
