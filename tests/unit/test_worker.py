"""A task does a bounded piece and gives back the rest: in the end every child was done once, whatever the bounds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from migration import worker
from migration.engine import Engine, LocalBackend, Phase
from migration.items import source_items
from migration.job import RunSettings
from migration.ledger import Journal, entries
from migration.shard import Shard, Totals
from migration.state import State
from migration.target import Target, TargetError
from migration.v2.read import SourceError
from migration.vectors import pair
from migration.worker import Item, Result, process
from tests.hostile_case import Tree, good, profile_record, session_record

NAMES = [
    *(f"chat_session_2025080{n}_100000" for n in range(1, 8)),
    "a b",
    "ünlaut",
    "\U0001f642",
    "b\udcff",
    "B",
    "%FF",
]


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    """One user with children of every sort of name, some plain, some not, and one user with nothing but a profile."""
    tree = Tree(tmp_path / "v2")
    tree.put("users/ada/profile.json", profile_record())
    tree.put("users/eve/profile.json", profile_record("eve"))
    for number, name in enumerate(NAMES):
        home = f"users/ada/{name}"
        tree.put(f"{home}/session.json", session_record(session="s"))
        tree.put(f"{home}/messages.jsonl", b"".join(good(n) + b"\n" for n in range(number + 1)))
        if number % 3 == 0:
            tree.put(f"{home}/notes.txt", b"stray")
    old(tmp_path / "v2")
    return RunSettings(os.fspath(tmp_path / "v2"), os.fspath(tmp_path / "new"))


def old(root: Path) -> None:
    for directory, _, files in os.walk(root):
        for name in files:
            os.utime(os.path.join(directory, name), ns=(10**18, 10**18))


def done(settings: RunSettings, run: int = 1, **bounds: Any) -> Totals:
    """The whole source through one shard, each task with these bounds."""
    state = State(settings.target)
    state.make()
    shard = Shard(Phase("migrate", 1, settings, run, state).shard_plan(0, 1, 0))
    while (task := shard.next_task()) is not None:
        shard.record([(task, process(replace(task, **bounds)))])
    shard.close()
    return shard.totals


def recorded(settings: RunSettings) -> Counter[tuple[bytes, str]]:
    found = entries(State(settings.target).ledger)
    return Counter((entry.span.name, unit.name) for entry in found if entry.span.kind == "user" for unit in entry.units)


def files(root: str) -> dict[str, bytes]:
    return {
        os.path.relpath(os.path.join(directory, name), root): Path(directory, name).read_bytes()
        for directory, _, names in os.walk(root)
        for name in names
        if ".migration" not in directory
    }


@pytest.mark.parametrize(
    "bounds",
    [{}, {"seconds": 0.0}, {"seconds": -1.0}, {"max_bytes": 0}, {"max_bytes": 1000}, {"seconds": 0.0, "max_bytes": 0}],
)
@pytest.mark.parametrize("size_of_range", [1, 3, 256])
def test_every_child_is_done_once_whatever_the_bounds(
    settings: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounds: dict[str, Any], size_of_range: int
) -> None:
    whole = replace(settings, target=os.fspath(tmp_path / "whole"))
    expected = done(whole, seconds=1e9)
    monkeypatch.setattr(worker, "_RANGE", size_of_range)
    totals = done(settings, **bounds)
    assert totals.named() == expected.named()
    assert (totals.files, totals.bytes, totals.users) == (expected.files, expected.bytes, expected.users)
    counted = recorded(settings)
    assert set(counted.values()) == {1}
    assert len(counted) == len(NAMES) + 2  # what stands beside the children of ada and of eve
    assert files(settings.target) == files(whole.target)


@pytest.mark.parametrize("bounds", [{}, {"seconds": 0.0}])
@pytest.mark.parametrize("earlier", [{}, {"seconds": 0.0}])
def test_a_second_run_finds_everything_done_whatever_the_bounds_of_the_first(
    settings: RunSettings, bounds: dict[str, Any], earlier: dict[str, Any]
) -> None:
    first = done(settings, **earlier)
    second = done(settings, run=2, **bounds)
    assert second.resumed == second.named()["sessions"] == len(NAMES)
    assert second.named() == first.named()
    assert set(recorded(settings).values()) == {1}


def test_a_task_does_at_least_one_item_and_gives_back_the_others(settings: RunSettings) -> None:
    state = State(settings.target)
    state.make()
    shard = Shard(Phase("migrate", 1, settings, 1, state).shard_plan(0, 1, 0))
    task = shard.next_task()
    assert task is not None
    result = process(replace(task, items=(Item("user", "eve"), Item("user", "ada")), places=((), ()), seconds=-1))
    assert (result.users, result.left) == (1, [Item("user", "ada")])
    shard.close()


def test_ranges_follow_one_another_from_the_last_child_done_to_the_end(settings: RunSettings) -> None:
    left = first_result(settings, "ada", seconds=-1).left
    assert left[0].low == min(NAMES, key=os.fsencode)
    assert [one.high for one in left[:-1]] == [one.low for one in left[1:]]
    assert left[-1].high is None


def first_result(settings: RunSettings, user: str, **bounds: Any) -> Result:
    state = State(settings.target)
    state.make()
    shard = Shard(Phase("migrate", 1, settings, 1, state, (Item("user", user),)).shard_plan(0, 1, 0))
    task = shard.next_task()
    assert task is not None
    return process(replace(task, **bounds))


def test_a_user_that_is_gone_is_no_error_and_no_user(settings: RunSettings) -> None:
    result = first_result(settings, "nobody")
    assert (result.counts, result.left) == ([0] * len(result.counts), [])


def test_a_child_that_comes_while_its_user_is_done_is_found_by_its_range(settings: RunSettings) -> None:
    state = State(settings.target)
    state.make()
    shard = Shard(Phase("migrate", 1, settings, 1, state, (Item("user", "ada"),)).shard_plan(0, 1, 0))
    task = shard.next_task()
    assert task is not None
    shard.record([(task, process(replace(task, seconds=-1)))])
    Tree(Path(settings.source)).session("users/ada/zz_late")
    while (task := shard.next_task()) is not None:
        shard.record([(task, process(task))])
    assert shard.totals.named()["sessions"] == len(NAMES) + 1
    shard.close()


def test_a_range_whose_directory_cannot_be_listed_is_said_and_not_recorded(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(settings.target)
    state.make()
    shard = Shard(Phase("migrate", 1, settings, 1, state, (Item("user", "ada", "B", None),)).shard_plan(0, 1, 0))
    task = shard.next_task()
    assert task is not None
    scandir = os.scandir

    def fail(path: str) -> Any:
        if path.endswith("/users/ada"):
            raise OSError(5, "Input/output error")
        return scandir(path)

    with monkeypatch.context() as broken:
        broken.setattr(os, "scandir", fail)
        result = process(task)
    assert [(issue.kind, issue.path) for issue in result.issues] == [("unread", "users/ada")]
    assert result.records == b""
    shard.close()


def test_what_a_task_wrote_is_durable_before_it_is_recorded(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    sync, append = Target.sync, Journal.append

    def note_sync(target: Target) -> None:
        happened.append("sync")
        sync(target)

    def note_append(journal: Journal, records: bytes) -> None:
        happened.append("append")
        append(journal, records)

    monkeypatch.setattr(Target, "sync", note_sync)
    monkeypatch.setattr(Journal, "append", note_append)
    done(settings)
    assert happened[:2] == ["sync", "append"]
    assert happened.count("sync") >= happened.count("append")
    happened.clear()
    done(settings, run=2)
    assert happened == []  # nothing was done, so there is nothing to wait for


def test_what_cannot_be_written_ends_the_task(settings: RunSettings) -> None:
    state = State(settings.target)
    state.make()
    shard = Shard(Phase("migrate", 1, settings, 1, state).shard_plan(0, 1, 0))
    task = shard.next_task()
    assert task is not None
    Path(settings.target, "text_chat").write_text("in the way")
    with pytest.raises(TargetError, match="in the way"):
        process(replace(task, items=(Item("user", "ada"),), places=((),)))


def test_an_unforeseen_error_of_the_source_names_the_item(
    settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Iterator[Any]:
        raise OSError(5, "Input/output error")

    monkeypatch.setitem(worker._HANDLERS, "user", fail)
    with pytest.raises(SourceError, match="ada: Input/output error"):
        first_result(settings, "ada")


def test_items_name_their_spans_by_bytes() -> None:
    assert Item("user", "b\udcff", "a\udcfe", None).span == ("user", b"b\xff", b"a\xfe", None)
    assert Item("split", "ada", extra=1).span == Item("user", "ada").span
    assert Item("merge", "\ud800").span.name == b"\xed\xa0\x80"


# ---- the pieces of a source ------------------------------------------------------------------------------------------


def test_every_piece_of_a_source_is_named_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    for name in (
        "users/ada/profile.json",
        "users/ada.backup_20250802_101112/profile.json",
        "people/ada/profile.json",
        "people/bob/profile.json",
        "panel_sessions/p/panel.json",
        "personas_global/x.json",
        "system/a/b.json",
        "g1/profile.json",
        "ada/profile.json",
        "g1.backup_20250802_101112/profile.json",
        "logs/a.log",
        "top.txt",
    ):
        tree.put(name, b"{}")
    names = RunSettings("", "").names.with_users_dirs(("people",))
    found = [(item.kind, item.name) for item in source_items(RunSettings(os.fspath(tmp_path), "", names))]
    assert sorted(found) == [
        ("files", ""),
        ("files", "panel_sessions"),
        ("files", "people"),
        ("files", "users"),
        ("panel", "panel_sessions/p"),
        ("personas", "personas_global"),
        ("strays", "g1.backup_20250802_101112"),
        ("strays", "logs"),
        ("strays", "system"),
        ("strays", "users/ada.backup_20250802_101112"),
        ("user", "ada"),
        ("user", "bob"),
        ("user", "g1"),
    ]


# ---- vectors: which rows belong to which lines -----------------------------------------------------------------------


def line(chunk: object, index: object = None, **more: object) -> bytes:
    record = {"chunk_id": chunk} | ({"vector_index": index} if index is not None else {}) | more
    return repr(record).replace("'", '"').replace("True", "true").encode()


@pytest.mark.parametrize(
    ("lines", "rows", "rows_of", "orphan_rows", "orphan_lines"),
    [
        ([], 0, {}, [], []),
        ([], 2, {}, [0, 1], []),
        ([line("a", 0), line("b", 1)], 2, {"a": [0], "b": [1]}, [], []),
        ([line("a", 1), line("b", 0)], 2, {"a": [1], "b": [0]}, [], []),
        ([line("a", 0), line("b", 2)], 3, {"a": [0], "b": [2]}, [1], []),
        ([line("a", 0), line("b", 0)], 2, {"a": [0], "b": [1]}, [], []),  # not distinct: in order
        ([line("a", 1), line("b", 2)], 2, {"a": [0], "b": [1]}, [], []),  # not below the rows: in order
        ([line("a", -1), line("b", 0)], 2, {"a": [0], "b": [1]}, [], []),
        ([line("a", True), line("b", 0)], 2, {"a": [0], "b": [1]}, [], []),  # a truth value is no number
        ([line("a"), line("b")], 2, {"a": [0], "b": [1]}, [], []),
        ([line("a", 0), line("b", 1)], 1, {"a": [0]}, [], [2]),
        ([line("a", 0)], 3, {"a": [0]}, [1, 2], []),
        ([line("a", 0), b"", line("b", 1)], 2, {"a": [0], "b": [1]}, [], []),  # a blank line has no row
        ([line("a", 0), b'{"torn', line("b", 1)], 3, {"a": [0], "b": [2]}, [1], [2]),
        ([b"[]", line("b")], 2, {"b": [1]}, [0], [1]),
        ([line("a", 0), line("a", 1)], 2, {"a": [0, 1]}, [], []),
        ([line(7, 0)], 1, {"7": [0]}, [], []),
        ([line("a", 0)], 0, {}, [], [1]),
    ],
)
def test_lines_pair_with_rows_by_index_where_that_is_sound_else_in_order(
    lines: list[bytes], rows: int, rows_of: dict[str, list[int]], orphan_rows: list[int], orphan_lines: list[int]
) -> None:
    pairing = pair(lines, rows)
    assert (pairing.rows_of, pairing.orphan_rows, pairing.orphan_lines) == (rows_of, orphan_rows, orphan_lines)


def test_lines_name_their_documents_and_the_model_that_they_claim() -> None:
    claims = {"provider": "p", "model": "m", "dimensions": 8, "normalized": True, "other": 1}
    lines = [line("a", 0, document_id="d"), line("b", 1, document_id="e", embedding_metadata=claims)]
    pairing = pair([*lines, line("c", 2, document_id="d"), line("e", 3, document_id=7)], 4)
    assert pairing.documents == ["d", "e"]
    assert pairing.claimed == {"provider": "p", "model": "m", "dimensions": 8, "normalized": True}


def test_an_array_and_its_index_hold_the_same_rows(settings: RunSettings, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    tree = Tree(tmp_path / "v2")
    rows = np.random.default_rng(1).normal(size=(5, 4))
    home = "users/default/sessions/x/vectors"
    np.save(tree.path(f"{home}/embeddings.npy").decode(), rows)
    Engine(settings, LocalBackend()).run()
    (found,) = Path(settings.target).glob("rag/embeddings/*/index.faiss")
    index = faiss.read_index(os.fspath(found))
    assert np.allclose(index.reconstruct_n(0, 5), rows, atol=1e-6)
    assert (found.parent / "vectors.npy").read_bytes() == Path(settings.source, home, "embeddings.npy").read_bytes()
