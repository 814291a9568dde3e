"""Users whose data stands in directories that v2 did not make for them: put together, nothing twice, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.report import RunReport
from migration.reverse import reverse
from migration.v2.names import V2Names

NAMES = V2Names().with_users_dirs(("people",))


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True))


def session(user: str, session_id: str, **more: Any) -> dict[str, Any]:
    stamp = "2025-08-01T10:00:00.000001"
    return (
        {"session_id": session_id, "user_id": user, "title": "t", "created_at": stamp, "updated_at": stamp}
        | {
            "message_count": 0,
            "metadata": {},
        }
        | more
    )


def profile(user: str, updated_at: str) -> dict[str, Any]:
    stamp = "2025-08-01T10:00:00.000001"
    named = {"user_id": user, "username": user, "created_at": stamp, "updated_at": updated_at}
    return {**named, "preferences": {}, "metadata": {}}


def message(message_id: str) -> str:
    return json.dumps({"role": "user", "content": "hello", "message_id": message_id}) + "\n"


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "old", tmp_path / "new"


def migrate(trees: tuple[Path, Path]) -> RunReport:
    return Engine(RunSettings(str(trees[0]), str(trees[1]), NAMES), LocalBackend()).run()


def comes_back(trees: tuple[Path, Path]) -> bool:
    old, new = trees
    back = new.with_name("back")
    reverse(str(new), str(back))
    files = [path for path in old.rglob("*") if path.is_file()]
    return all((back / path.relative_to(old)).read_bytes() == path.read_bytes() for path in files)


def ids(new: Path, user: str, session_id: str) -> list[str]:
    text = (new / "text_chat/sessions" / user / session_id / "messages.jsonl").read_text()
    return [json.loads(line)["id"] for line in text.splitlines()]


def test_messages_go_with_the_record_of_another_place_that_names_a_foreign_user(trees: tuple[Path, Path]) -> None:
    old, new = trees
    write(old / "users/alice/profile.json", profile("alice", "2025-08-01T10:00:00"))
    write(old / "users/x/s1/session.json", session("alice", "s1"))
    write(old / "people/x/s1/messages.jsonl", message("m1"))
    report = migrate(trees)
    assert ids(new, "alice", "s1") == ["m1"]
    assert (report.counts["sessions"], report.counts["messages"], report.exit_code) == (1, 1, 0)
    assert comes_back(trees)


def test_a_part_without_a_record_is_not_migrated_twice(trees: tuple[Path, Path]) -> None:
    old, new = trees
    write(old / "users/x/profile.json", profile("alice", "2025-08-01T10:00:00"))
    write(old / "users/alice/s9/session.json", session("alice", "s9"))
    write(old / "users/x/s1/session.json", session("x", "s1"))
    write(old / "people/x/s1/messages.jsonl", message("m1"))
    report = migrate(trees)
    assert ids(new, "x", "s1") == ["m1"]
    assert not (new / "text_chat/sessions/alice/s1").exists()
    assert (report.counts["sessions"], report.counts["messages"]) == (2, 1)
    assert comes_back(trees)


def test_one_session_in_two_directories_becomes_one_session(trees: tuple[Path, Path]) -> None:
    old, new = trees
    write(old / "users/alice/s1/session.json", session("alice", "s1"))
    write(old / "users/alice/s1/messages.jsonl", message("m1"))
    write(old / "users/y/s1/session.json", session("alice", "s1", updated_at="2025-08-02T10:00:00", title="newer"))
    write(old / "users/y/s1/messages.jsonl", message("m2"))
    report = migrate(trees)
    assert ids(new, "alice", "s1") == ["m1", "m2"]
    metadata = json.loads((new / "text_chat/sessions/alice/s1/metadata.json").read_text())
    assert (metadata["title"], metadata["message_count"]) == ("newer", 2)
    assert (report.counts["sessions"], report.counts["messages"]) == (1, 2)
    assert comes_back(trees)


def test_profiles_of_two_users_in_two_places_of_one_directory_both_stay(trees: tuple[Path, Path]) -> None:
    old, new = trees
    write(old / "users/alice/s1/session.json", session("alice", "s1"))
    write(old / "users/x/profile.json", profile("x", "2025-08-01T10:00:00"))
    write(old / "people/x/profile.json", profile("alice", "2025-08-02T10:00:00"))
    report = migrate(trees)
    assert report.counts["profiles"] == 2
    assert json.loads((new / "text_chat/users/x/profile.json").read_text())["username"] == "x"
    assert json.loads((new / "text_chat/users/alice/profile.json").read_text())["username"] == "alice"
    assert comes_back(trees)


def test_the_second_persona_of_one_name_is_kept_in_the_attic(trees: tuple[Path, Path]) -> None:
    old, new = trees
    write(old / "users/x/s1/session.json", session("x", "s1"))
    write(old / "users/x/personas/p.json", {"id": "p", "name": "first"})
    write(old / "people/x/personas/p.json", {"id": "p", "name": "second"})
    report = migrate(trees)
    assert json.loads((new / "persona/users/x/p/original.json").read_text())["name"] == "first"
    assert json.loads((new / "attic/people/x/personas/p.json").read_text())["name"] == "second"
    assert report.counts["personas"] == 1
    assert comes_back(trees)


def test_backups_of_a_nested_session_and_of_its_parent_stay_apart(trees: tuple[Path, Path]) -> None:
    old, _ = trees
    write(old / "users/x/s0/session.json", session("x", "s0"))
    write(old / "users/x/a.backup_20250801_100000/b/messages.jsonl", message("m1"))
    write(old / "users/x/a/b.backup_20250801_100000/messages.jsonl", message("m2"))
    report = migrate(trees)
    assert (report.counts["archived"], report.counts["archived_messages"]) == (2, 2)
    assert comes_back(trees)


def test_a_second_run_does_nothing(trees: tuple[Path, Path]) -> None:
    old, new = trees
    write(old / "users/alice/s1/messages.jsonl", message("m1"))
    write(old / "users/y/s1/session.json", session("alice", "s1"))
    first = migrate(trees)
    before = {path: path.stat().st_mtime_ns for path in (new / "text_chat").rglob("*")}
    second = migrate(trees)
    assert {path: path.stat().st_mtime_ns for path in (new / "text_chat").rglob("*")} == before
    assert second.counts == first.counts
