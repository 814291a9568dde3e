"""A plan and the run after it give the same figures, whatever the store holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from migration.engine import Engine, LocalBackend
from migration.job import RunSettings
from migration.plan import make_plan
from migration.sample import write_sample
from migration.v2.names import V2Names
from tests.hostile import CASES, folder_cases
from tests.hostile_case import HOME, SESSION, Tree, document_entry, good, profile_record, session_record

ALL = CASES | folder_cases()

SAME = (
    "users",
    "sessions",
    "documents",
    "archived",
    "archived_documents",
    "contexts",
    "profiles",
    "personas",
    "panels",
    "vector_sets",
    "links",
    "special",
    "empty_dirs",
    "migrated_files",
    "attic",
    "ignored",
    "unread",
    "bytes",
)


@pytest.fixture(autouse=True)
def everything_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration.plan.check_dependencies", list)


def figures(settings: RunSettings) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the plan and of the run."""
    planned = make_plan(settings).to_json()
    done = Engine(settings, LocalBackend()).run().to_json()
    return {name: planned[name] for name in SAME}, {name: done[name] for name in SAME}


def originals(target: Path) -> int:
    """Documents that the run has written, live and archived ones."""
    return len(
        [*target.glob("rag/documents/*/original*"), *target.glob("text_chat/archive/*/*/*/documents/*/original*")]
    )


def settings_for(tmp_path: Path, config: Mapping[str, Any] | None = None, extra: tuple[str, ...] = ()) -> RunSettings:
    values = {key: value for section in (config or {}).values() for key, value in section.items()}
    return RunSettings(os.fspath(tmp_path / "v2"), os.fspath(tmp_path / "new"), V2Names.from_config(values), extra)


@pytest.mark.parametrize("name", ALL)
def test_plan_and_run_agree_on_every_case_of_bad_input(name: str, tmp_path: Path) -> None:
    expected = ALL[name](tmp_path / "v2")
    settings = settings_for(tmp_path, expected.v2_config)
    planned, done = figures(settings)
    assert planned == done
    assert planned["sessions"] == len(expected.sessions)
    assert planned["attic"] == len(expected.attic)


def test_plan_and_run_agree_on_a_store_of_every_kind(tmp_path: Path) -> None:
    counts = write_sample(tmp_path / "v2")
    planned, done = figures(settings_for(tmp_path))
    assert planned == done
    assert (planned["users"], planned["sessions"]) == (counts.user_directories, counts.sessions)
    assert (planned["attic"], planned["ignored"]) == (counts.attic_files, counts.ignored_files)
    assert planned["migrated_files"] == counts.migrated_files


def test_message_files_and_documents_are_counted_as_the_run_writes_them(tmp_path: Path) -> None:
    write_sample(tmp_path / "v2")
    tree = Tree(tmp_path / "v2")
    for directory in ("ada", "eve"):  # the second's session is the first's: one document each, one of them twice
        tree.session(f"users/{directory}/{SESSION}")
        for name in ("1_both.txt", f"2_{directory}.txt"):
            tree.put(f"users/{directory}/{SESSION}/documents/{name}", b"text")
    settings = settings_for(tmp_path)
    counts = make_plan(settings).survey.counts
    Engine(settings, LocalBackend()).run()
    target = tmp_path / "new"
    assert counts["document_files"] == originals(target)
    written = [
        *target.glob("text_chat/sessions/*/*/messages.jsonl"),
        *target.glob("text_chat/archive/**/messages.jsonl"),
    ]
    assert counts["message_files"] == len(written) + 1  # two parts make one file
    assert counts["shards"] == len([*target.glob("text_chat/**/shards/*")])


def test_they_agree_where_parts_of_a_session_claim_one_place(tmp_path: Path) -> None:
    """The second context, snapshot, document and shard of one name have no place left: they go to the attic."""
    tree = Tree(tmp_path / "v2")
    for home in (HOME, f"people/ada/{SESSION}"):
        tree.session(home)
        tree.put(f"{home}/situational_context.json", {"summary": "s"})
        tree.put(f"{home}/context_history/c.json", {"summary": "s"})
        tree.put(f"{home}/documents/metadata.json", {"1_a.txt": document_entry("1_a.txt"), "2_b": {}})
        tree.put(f"{home}/documents/1_a.txt", b"text")
        tree.put(f"{home}/x_messages.jsonl", good(1) + b"\n")
    planned, done = figures(settings_for(tmp_path, {"storage": {"user_data_directory": "people"}}))
    assert planned == done
    assert (planned["sessions"], planned["attic"]) == (1, 4)


def test_they_agree_where_several_directories_hold_one_user(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    for directory in ("eve", "mallory"):
        tree.put(f"users/{directory}/profile.json", profile_record("ada"))
        tree.put(f"users/{directory}/{SESSION}/session.json", session_record("ada"))
        tree.put(f"users/{directory}/only_{directory}/messages.jsonl", good(1) + b"\n")
        tree.put(f"users/{directory}/damaged/session.json", b"{")
        tree.put(f"users/{directory}/gone.backup_20250802_101112/session.json", session_record("ada"))
    planned, done = figures(settings_for(tmp_path))
    assert planned == done
    assert planned["sessions"] == 1 + 2 + 1


def test_they_agree_on_personas_of_one_name_in_both_directories(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    for directory in ("personas_global", "personas"):
        tree.put(f"{directory}/x.json", {"id": "x"})
        tree.put(f"{directory}/only_in_{directory}.json", {"id": "y"})
        tree.put(f"{directory}/cut.json", b"{")
    planned, done = figures(settings_for(tmp_path))
    assert planned == done
    assert (planned["personas"], planned["attic"]) == (3, 3)


def test_they_agree_on_vector_sets_of_further_roots(tmp_path: Path) -> None:
    tree, other = Tree(tmp_path / "v2"), Tree(tmp_path / "dev_data")
    tree.session()
    other.put(f"users/default/sessions/{SESSION}/vectors/vector_index.jsonl", b'{"chunk_id": "c"}\n')
    other.put("users/default/stray.txt", b"the run takes nothing but vectors from there")
    planned, done = figures(settings_for(tmp_path, extra=(os.fspath(tmp_path / "dev_data"),)))
    assert planned == done
    assert planned["vector_sets"] == 1
