"""The cases of bad input are what they say, by a reading of them that knows nothing of how they were built."""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration.issues import KINDS
from tests import hostile_files, hostile_leftovers, hostile_lines, hostile_names, hostile_vectors
from tests.hostile import CASES, FOLDERS, Expectation, Notice, folder_cases
from tests.hostile_case import derived_id, shown

ALL = CASES | folder_cases()
DEEPEST = 1000

CLAIMED = re.compile(
    r"""(.*/)?(profile\.json|session\.json|messages\.jsonl|[^/]+_messages\.jsonl|situational_context\.json)
      | .*/context_history/[^/]+\.json
      | .*/documents/[^/]+
      | users/[^/]+/sessions/.+/vectors/(embeddings\.npy|vector_index\.jsonl)
      | (personas_global|personas|users/[^/]+/personas)/[^/]+\.json
      | (panel_sessions|panels)/[^/]+/(panel\.json|insights/[^/]+\.json|personas/.+\.json)
    """,
    re.VERBOSE | re.DOTALL,
)

Entries = dict[str, os.stat_result]


def entries(root: Path) -> Entries:
    """All files and directories below *root*, links not followed."""
    found = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


def regular(found: Entries) -> set[str]:
    return {path for path, status in found.items() if stat.S_ISREG(status.st_mode)}


def build(name: str, tmp_path: Path) -> tuple[Path, Expectation]:
    root = tmp_path / "v2"
    return root, ALL[name](root)


def outcomes(data: bytes) -> Iterator[tuple[str, str | None]]:
    """What becomes of each line, and the message's own id, by the words of docs/target.md."""
    lines = data.split(b"\n")
    for line in lines[:-1] if lines[-1] == b"" else lines:
        if not line.strip():
            yield "blank", None
        elif (record := parsed(line)) is not None:
            yield "message", own_id(record)
        elif b"{" in line and (record := parsed(line[line.index(b"{") :])) is not None:
            yield "salvaged", own_id(record)
        else:
            yield "quarantined", None


def parsed(data: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(data.decode("utf-8"), parse_int=len)  # int() refuses more than 4300 digits
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def own_id(record: dict[str, object]) -> str | None:
    ids = (record.get("message_id"), record.get("id"))
    return next((value for value in ids if isinstance(value, str) and value), None)


def message_files(root: Path, expected: Expectation) -> dict[str, bytes]:
    found = regular(entries(root)) - expected.attic
    return {path: (root / path).read_bytes() for path in found if path.endswith("/messages.jsonl")}


@pytest.mark.parametrize("name", ALL)
def test_every_line_has_the_outcome_that_is_expected(name: str, tmp_path: Path) -> None:
    root, expected = build(name, tmp_path)
    found = Counter(kind for data in message_files(root, expected).values() for kind, _ in outcomes(data))
    assert found["message"] + found["salvaged"] == (
        expected.messages + expected.archived_messages + expected.panel_messages
    )
    assert (found["salvaged"], found["quarantined"], found["blank"]) == (
        expected.salvaged,
        expected.quarantined,
        expected.blank,
    )


@pytest.mark.parametrize("name", hostile_lines.CASES)
def test_ids_are_those_that_the_lines_hold_or_derived_from_their_place(name: str, tmp_path: Path) -> None:
    root, expected = build(name, tmp_path)
    assert expected.ids is not None
    ((user, session), ids) = next(iter(expected.ids.items()))
    lines = enumerate(outcomes((root / "users" / user / session / "messages.jsonl").read_bytes()), 1)
    assert ids == tuple(
        own if own is not None else derived_id(user, session, number)
        for number, (kind, own) in lines
        if kind in {"message", "salvaged"}
    )


@pytest.mark.parametrize("name", ALL)
def test_every_file_is_claimed_carried_to_the_attic_or_ignored(name: str, tmp_path: Path) -> None:
    root, expected = build(name, tmp_path)
    files = regular(entries(root))
    assert expected.attic <= files
    assert expected.ignored <= files
    assert not expected.attic & expected.ignored
    rest = files - expected.attic - expected.ignored
    assert [path for path in rest if not CLAIMED.fullmatch(path)] == []


@pytest.mark.parametrize("name", ALL)
def test_links_pipes_sockets_and_empty_locks_are_all_expected(name: str, tmp_path: Path) -> None:
    root, expected = build(name, tmp_path)
    found = entries(root)
    assert expected.links == {path for path, status in found.items() if stat.S_ISLNK(status.st_mode)}
    kinds = (stat.S_ISFIFO, stat.S_ISSOCK)
    assert expected.special == {path for path, status in found.items() if any(is_(status.st_mode) for is_ in kinds)}
    assert expected.ignored == {path for path in regular(found) if path.endswith(".lock") and not found[path].st_size}


@pytest.mark.parametrize("name", ALL)
def test_expected_sessions_are_the_directories_that_hold_one(name: str, tmp_path: Path) -> None:
    root, expected = build(name, tmp_path)
    people = (expected.v2_config or {}).get("storage", {}).get("user_data_directory", "users")
    live, archived = set(), set()
    for path in regular(entries(root)):
        home = re.fullmatch(
            rf"(?:users/|{people}/|(?!users/|panel|personas))[^/]+/(?P<session>.+)/(?P<file>[^/]+)", path, re.DOTALL
        )
        if home is None or (expected.v2_config is None and path.startswith("people/")):
            continue
        session, file = home["session"], home["file"]
        if session.endswith(("/documents", "/context_history")) and session.count("/") == 1:
            session, file = session.split("/")[0], "session.json"
        elif file == "situational_context.json" and "/" not in session:
            file = "session.json"
        if file in {"session.json", "messages.jsonl"} or file.endswith("_messages.jsonl"):
            was_deleted = re.fullmatch(r"(.+)\.backup_(\d{8}_\d{6})", session, re.DOTALL)
            if was_deleted:
                archived.add(was_deleted.groups())
            else:
                live.add(shown(session))
    assert {session for _, session in expected.sessions} == live
    assert {(session, stamp) for _, session, stamp in expected.archived} == archived


@pytest.mark.parametrize("name", ALL)
def test_what_must_be_reported_is_there_to_be_reported(name: str, tmp_path: Path) -> None:
    root, expected = build(name, tmp_path)
    there = {shown(path) for path in entries(root)}
    absent = {notice for notice in expected.notices if notice.path not in there}
    assert {notice.kind for notice in absent} <= {"entry_without_file"}
    assert {notice.kind for notice in expected.notices} <= KINDS.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_case_is_the_same_each_time(name: str, tmp_path: Path) -> None:
    def tree(root: Path) -> dict[str, bytes | str | int]:
        return {
            path: (root / path).read_bytes()
            if stat.S_ISREG(status.st_mode)
            else os.readlink(root / path)
            if stat.S_ISLNK(status.st_mode)
            else stat.S_IFMT(status.st_mode)
            for path, status in entries(root).items()
        }

    one, other = tmp_path / "one", tmp_path / "other"
    assert ALL[name](one) == ALL[name](other)
    assert tree(one) == tree(other)


def test_no_two_cases_share_a_name() -> None:
    parts = (hostile_files, hostile_leftovers, hostile_lines, hostile_names, hostile_vectors)
    assert len(CASES) == sum(len(part.CASES) for part in parts)
    assert CASES.keys().isdisjoint(folder_cases())


def test_deep_nesting_lies_on_both_sides_of_the_limit(tmp_path: Path) -> None:
    depths = {}
    for name in ("nested_400_deep", "nested_200000_deep"):
        root, _ = build(name, tmp_path / name)
        (path,) = root.rglob("messages.jsonl")
        depths[name] = path.read_bytes().partition(b"\n")[0].count(b"[")
    assert depths["nested_400_deep"] < DEEPEST < depths["nested_200000_deep"]


def test_links_lead_out_of_the_tree_and_in_circles(tmp_path: Path) -> None:
    root, expected = build("links_of_every_sort", tmp_path)
    targets = {path: os.readlink(root / path) for path in expected.links}
    assert any(os.path.isabs(target) and os.path.exists(target) for target in targets.values())
    with pytest.raises(OSError, match="symbolic links"):
        next(root / path for path, target in targets.items() if target == "itself").stat()


def test_a_folder_is_a_case(tmp_path: Path) -> None:
    folder = tmp_path / "cases" / "notes_beside_a_session"
    (folder / "tree/users/ada/s").mkdir(parents=True)
    (folder / "tree/users/ada/s/messages.jsonl").write_bytes(b'{"id": "m"}\n')
    (folder / "tree/users/ada/notes.txt").write_bytes(b"mine")
    expectation = {
        "sessions": [["ada", "s"]],
        "messages": 1,
        "attic": ["users/ada/notes.txt"],
        "notices": [["users/ada/notes.txt", "cp1252"]],
        "ids": [["ada", "s", ["m"]]],
    }
    (folder / "expect.json").write_text(json.dumps(expectation))
    (case,) = folder_cases(tmp_path / "cases").values()
    assert case(tmp_path / "v2") == Expectation(
        sessions=frozenset({("ada", "s")}),
        messages=1,
        attic=frozenset({"users/ada/notes.txt"}),
        notices=frozenset({Notice("users/ada/notes.txt", "cp1252")}),
        ids={("ada", "s"): ("m",)},
    )
    assert regular(entries(tmp_path / "v2")) == {"users/ada/s/messages.jsonl", "users/ada/notes.txt"}


def test_a_folder_that_expects_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/expect.json").write_text('{"mesages": 1}')
    with pytest.raises(ValueError, match="mesages"):
        folder_cases(tmp_path)


def test_the_example_in_the_readme_is_an_expectation(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", (FOLDERS / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    (tmp_path / "example").mkdir()
    (tmp_path / "example/expect.json").write_text(example[1])
    assert list(folder_cases(tmp_path)) == ["example"]
