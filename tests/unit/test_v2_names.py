"""Names of a v2 installation."""

from __future__ import annotations

import pytest

from migration.v2.names import BACKUP, V2Names


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a file or directory name"):
        V2Names(messages=name)
    with pytest.raises(ValueError, match="cannot be a file or directory name"):
        V2Names(users_dirs=("users", name))


def test_configured_names_come_first_and_the_usual_ones_stay() -> None:
    names = V2Names.from_config({"user_data_directory": "people", "panel_sessions_directory": "panels"})
    assert names.users_dirs == ("people", "users")
    assert names.panel_dirs == ("panels", "panel_sessions")
    assert names.with_users_dirs(("more", "users")).users_dirs == ("people", "users", "more")


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("profile_filename", "profile"),
        ("session_metadata_filename", "session"),
        ("messages_filename", "messages"),
        ("document_storage_subdirectory", "documents"),
        ("document_metadata_filename", "document_index"),
        ("vector_storage_subdirectory", "vectors"),
        ("embeddings_filename", "embeddings"),
        ("atomic_write_temp_suffix", "temp_suffix"),
    ],
)
def test_each_key_of_v2_names_one_thing(key: str, field: str) -> None:
    names = V2Names.from_config({key: "other", "unknown": "ignored"})
    assert getattr(names, field) == "other"
    assert names.all_names().count("other") == 1


def test_a_value_that_is_no_name_is_refused_and_an_absent_one_is_not() -> None:
    assert V2Names.from_config({"messages_filename": None}) == V2Names()
    with pytest.raises(ValueError, match="messages_filename must be a name"):
        V2Names.from_config({"messages_filename": 7})


@pytest.mark.parametrize(
    ("name", "temporary"),
    [
        ("x.tmp", True),
        ("x.tmp.0aF1", True),
        ("x.json.tmp.12ab", True),
        (".tmp", False),
        ("x.tmp.", False),
        ("x.tmp.xyz", False),
        ("x.tmpl", False),
        ("tmp", False),
        ("x.tmp.12\n", False),
    ],
)
def test_leftovers_of_atomic_writes(name: str, temporary: bool) -> None:
    assert V2Names().is_temporary(name) is temporary


def test_directories_of_v2_itself_are_no_first_generation_users() -> None:
    names = V2Names.from_config({"user_data_directory": "people"})
    reserved = {"users", "people", "panel_sessions", "panels", "personas", "personas_global", "system"}
    assert names.reserved_top_level() == reserved


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("s.backup_20250802_101112", ("s", "20250802_101112")),
        ("a\nb.backup_20250802_101112", ("a\nb", "20250802_101112")),
        ("s.backup_20250801_000000.backup_20250802_101112", ("s.backup_20250801_000000", "20250802_101112")),
        (".backup_20250802_101112", None),
        ("s.backup_2025", None),
        ("s.backup_20250802_101112x", None),
        ("s.backup_20250802_101112\n", None),
    ],
)
def test_backups(name: str, match: tuple[str, str] | None) -> None:
    found = BACKUP.fullmatch(name)
    assert (found and (found["name"], found["stamp"])) == match
