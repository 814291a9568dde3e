"""What a run needs of the machine, and what around the source an operator should know."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from migration.preflight import Space, Surroundings, nearest_existing, space_at, space_needed, surroundings
from migration.survey import EXAMPLES, Finding, Survey
from migration.unit import MIGRATED
from migration.v2.names import V2Names
from tests.hostile import CASES
from tests.hostile_case import SESSION, Tree, good
from tests.plan_trees import plan_of, settings_of


def around(tmp_path: Path, names: V2Names | None = None) -> Surroundings:
    return surroundings(settings_of(tmp_path, names=names or V2Names()))


# ---- space


def test_space_is_every_byte_a_block_for_every_file_and_five_percent() -> None:
    survey = Survey(files=Counter({MIGRATED: 100}), bytes=1_000_000)
    assert space_needed(survey, block_bytes=4096) == (round((1_000_000 + 100 * 4096) * 1.05), 105)


def test_what_the_target_adds_to_sessions_and_documents_needs_space_too() -> None:
    bare = Survey(files=Counter({MIGRATED: 100}))
    full = Survey(files=Counter({MIGRATED: 100}), counts=Counter(sessions=50, documents=10))
    assert all(more > less for more, less in zip(space_needed(full, 512), space_needed(bare, 512), strict=True))


@pytest.mark.parametrize(
    ("space", "enough"),
    [
        (Space("/", 100, 100, 10, 10), True),
        (Space("/", 99, 100, 10, 10), False),
        (Space("/", 100, 100, 9, 10), False),
        (Space("/", 100, 100, None, 10), True),
    ],
)
def test_space_is_enough_when_bytes_and_inodes_are(space: Space, enough: bool) -> None:
    assert space.is_enough is enough


def test_space_is_that_of_the_nearest_directory_there_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for target in ("a/b/c", "file/b"):
        assert nearest_existing(os.fspath(tmp_path / target)) == os.fspath(tmp_path)
    space = space_at(os.fspath(tmp_path / "a/b"), Survey())
    assert (space.at, space.needed_bytes) == (os.fspath(tmp_path), 0)
    assert space.free_bytes > 0


# ---- other stores and other names


def test_a_users_directory_of_another_name_is_suggested(tmp_path: Path) -> None:
    CASES["session_split_and_configuration_lost"](tmp_path / "v2")
    assert around(tmp_path).users_dirs == ("people",)
    assert "give --users-dir people" in plan_of(tmp_path).text()
    assert around(tmp_path, V2Names().with_users_dirs(("people",))).users_dirs == ()


def test_a_store_inside_the_source_is_told_apart_from_a_users_directory(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.session()
    tree.session(f"staging/users/ada/{SESSION}")
    tree.put("exports/users/readme.txt", b"no user here")
    assert around(tmp_path) == Surroundings(stores=("staging",))
    assert "staging/ is a v2 store of its own" in plan_of(tmp_path).text()


def test_ordinary_directories_and_first_generation_users_are_no_find(tmp_path: Path) -> None:
    CASES["first_generation_users"](tmp_path / "v2")
    Tree(tmp_path / "v2").put("logs/today/a.log", b"line")
    assert around(tmp_path) == Surroundings()
    assert "no v2 configuration" in plan_of(tmp_path).text()


# ---- configurations


def config(path: Path, values: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return os.fspath(path)


def test_a_configuration_that_renames_files_must_be_given(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    path = config(tmp_path / "config/v2.json", {"storage": {"messages_filename": "chat.jsonl", "base_path": "./data"}})
    (told,) = around(tmp_path).configs
    assert (told.path, told.names, told.is_in_force) == (path, ("messages 'chat.jsonl'",), False)
    assert "give it with --config" in plan_of(tmp_path).text()
    names = replace(V2Names(), messages="chat.jsonl")
    assert around(tmp_path, names).configs[0].is_in_force


def test_configurations_are_found_in_the_source_beside_it_and_in_environment_files(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    sections = {"storage": {"max_sessions_per_user": 7}}
    paths = [config(tmp_path / place, sections) for place in ("v2/a.json", "b.json", "v2/configs/c.json")]
    (tmp_path / ".env.production").write_text("CHATDB_STORAGE_BASE_PATH=/data\nOPENAI_API_KEY=sk-secret-1234567890\n")
    told = around(tmp_path).configs
    assert {one.path for one in told} == {*paths, os.fspath(tmp_path / ".env.production")}
    assert "sk-secret" not in json.dumps(plan_of(tmp_path).to_json()) + plan_of(tmp_path).text()


@pytest.mark.parametrize("content", ['{"name": "app", "version": "1"}', "{}", "[1]", "{", "\x00"])
def test_other_json_files_are_no_configuration(content: str, tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    (tmp_path / "package.json").write_text(content)
    (tmp_path / ".env").write_text("PATH=/bin\n")
    assert around(tmp_path).configs == ()


def test_a_configuration_with_a_name_that_cannot_be_one_is_told_with_its_problem(tmp_path: Path) -> None:
    Tree(tmp_path / "v2").session()
    config(tmp_path / "v2.json", {"storage": {"messages_filename": "a/b"}})
    (told,) = around(tmp_path).configs
    assert "'a/b' cannot be" in told.problem
    assert "unusable" in plan_of(tmp_path).text()


# ---- sums


def test_sums_are_the_same_in_whatever_order_the_parts_come() -> None:
    def part(number: int) -> Survey:
        survey = Survey(bytes=number)
        survey.counts["sessions"] += number
        for name in range(number, number + 8):
            survey.find("attic", f"{(name * 7) % 20:02d}")
        return survey

    one, other = Survey(), Survey()
    for number in range(5):
        one.merge(part(number))
        other.merge(part(4 - number))
    assert one == other
    assert one.findings["attic"].count == 40
    assert len(one.findings["attic"].examples) == EXAMPLES


def test_of_a_finding_the_first_by_path_are_kept() -> None:
    survey = Survey()
    for number in reversed(range(30)):
        survey.find("attic", f"{number:02d}")
    assert [issue.path for issue in survey.issues("attic")] == [f"{number:02d}" for number in range(10)]
    assert list(survey.issues("link")) == []
    assert Finding() == Finding(0, [])


def test_a_busy_store_of_another_program_is_an_integration(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/5d2fa851-a0ac-4550-93ed-9a65918e8157/messages.jsonl", good(1) + b"\n")
    assert "sessions with names that v2 never gives: 1;" in plan_of(tmp_path).text()
